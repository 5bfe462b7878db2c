# SPDX-License-Identifier: Apache-2.0
"""The bundle of nuclei at its smallest: tiles with a few dark disks, runs in this process and in forks of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.bundles import tiny

SIZE = (64, 86)  # not square, so that no axis can be taken for the other
PATIENCE_S = 240
run = partial(tiny.run, bundle=tiny.NUCLEI)


def tile(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB (H, W, 3) of blue disks on pink and white, and their numbers (H, W) from 1 on; none touches another.

    They cover half of the tile, so that a network which has seen a dozen steps finds some.
    """
    rng = np.random.default_rng(seed)
    picture = np.where(np.arange(width)[:, None] < width // 2, [215.0, 150.0, 190.0], [245.0, 240.0, 245.0])
    picture = picture + rng.normal(0, 3, (height, width, 1))
    instances = np.zeros((height, width), np.uint16)
    rows, columns = np.mgrid[:height, :width]
    for row in range(10, height - 8, 22):
        for column in range(10, width - 8, 22):
            y, x = np.array([row, column]) + rng.integers(0, 2, 2)
            disk = (rows - y) ** 2 + (columns - x) ** 2 <= 81
            instances[disk] = instances.max() + 1
            picture[disk] = np.array([85, 50, 130]) + rng.normal(0, 3, (disk.sum(), 1))
    return picture.clip(0, 255).astype(np.uint8), instances


def dataset(root: Path, training: int = 4, validation: int = 1, test: int = 2) -> Path:
    """Write tiles, maps of instances and ``datalist.json``; return the folder. Tile i is ``images/t<i>.png``."""
    lists: dict[str, list[dict[str, str]]] = {}
    number = 0
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name, count in (("training", training), ("validation", validation), ("test", test)):
        lists[name] = []
        for _ in range(count):
            item = {"image": f"images/t{number:02d}.png", "label": f"labels/t{number:02d}.png", "group": name}
            for file, pixels in zip((item["image"], item["label"]), tile(number), strict=True):
                Image.fromarray(pixels).save(root / file)
            lists[name].append(item)
            number += 1
    (root / "datalist.json").write_text(json.dumps(lists))
    return root


def stage(out: Path, name: str) -> Path:
    """Return the folder of a stage, of which there must be one."""
    (found,) = out.glob(f"stages/{name}-*")
    return found


def fork(work: Callable[[], object], **environment: str) -> Any:
    """Start ``work`` in a process of its own, as loaders start theirs: what is imported need not be imported again."""

    def child() -> None:
        os.environ.update(environment)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def join(process: Any) -> int:
    """Wait for a process and return its exit code, that of a signal negative."""
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the process took longer than {PATIENCE_S} s")
    return int(process.exitcode)


def killed(work: Callable[[], object], pattern: str, count: int) -> None:
    """Start ``work`` and kill -9 it when the ``count``-th file of that name is whole but not yet in its place."""

    def deadly() -> None:
        seen = 0

        def on_event(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event == "os.rename" and fnmatch(str(arguments[1]), pattern):
                seen += 1
                if seen == count:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(on_event)
        work()

    assert join(fork(deadly)) == -signal.SIGKILL, f"file {count} of {pattern} was never written"
