# SPDX-License-Identifier: Apache-2.0
"""Write sets of slides: several tiles of each, a slide in one list only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.phantoms._write import DATALIST, save_png, write_once

Layers = dict[str, NDArray[np.uint8] | NDArray[np.uint16]]
FOLDERS = {"image": "images", "label": "labels", "class_label": "classes"}


def write_slides(
    folder: str | Path, identity: dict[str, Any], header: dict[str, Any], draw: Callable[[int, int], Layers]
) -> Path:
    """Draw and write all tiles, unless they are there.

    Args:
        folder: where to.
        identity: what decides the content; ``slides`` (training, validation, test) and ``tiles`` of each are counts.
        header: what stands above the lists.
        draw: called with slide and tile, returns pictures by the key that they have in an item.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """

    def write(draft: Path) -> None:
        lists: dict[str, list[dict[str, str]]] = {}
        start = 0
        for name, count in zip(("training", "validation", "test"), identity["slides"], strict=True):
            pairs = [(slide, tile) for slide in range(start, start + count) for tile in range(identity["tiles"])]
            lists[name] = [_write_tile(draft, slide, tile, draw(slide, tile)) for slide, tile in pairs]
            start += count
        (draft / DATALIST).write_text(json.dumps(header | lists | {"phantom": identity}, indent=1) + "\n")

    return write_once(folder, identity, write)


def _write_tile(folder: Path, slide: int, tile: int, layers: Layers) -> dict[str, str]:
    item = {}
    for key, pixels in layers.items():
        item[key] = f"{FOLDERS[key]}/slide{slide:02d}_{tile}.png"
        (folder / FOLDERS[key]).mkdir(exist_ok=True)
        save_png(folder / item[key], pixels)
    return item | {"group": f"slide{slide:02d}"}
