# SPDX-License-Identifier: Apache-2.0
"""Small data sets on disk for the tests of this folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (16, 12)) -> Path:
    """Write an RGB picture of width x height random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, value: int = 1, size: tuple[int, int] = (16, 12)) -> Path:
    """Write a mask whose upper left quarter holds ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = value
    Image.fromarray(pixels).save(path)
    return path


def dataset(
    root: Path, training: int = 8, validation: int = 2, videos: int = 2, empty: tuple[int, ...] = (), **lists: Any
) -> Path:
    """Write ``training`` + ``validation`` pairs over videos V0, V1, ... and ``datalist.json``; return the folder."""
    items = []
    for i in range(training + validation):
        name = f"f{i:02d}"
        picture(root / "images" / f"{name}.png", seed=i)
        mask(root / "labels" / f"{name}.png", value=0 if i in empty else 1)
        items.append({"image": f"images/{name}.png", "label": f"labels/{name}.png", "video": f"V{i % videos}"})
    for item in items[training:]:
        item["video"] = "VAL"
    content = {"training": items[:training], "validation": items[training:], **lists}
    (root / "datalist.json").write_text(json.dumps(content))
    return root


def age(*paths: Path, seconds: int = 60) -> None:
    """Set the modification time back, as if the files had been there for a while."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - seconds * 10**9,) * 2)
