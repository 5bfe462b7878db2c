# SPDX-License-Identifier: Apache-2.0
"""BCData: Ki-67 tiles as PNG with the centers of positive and negative tumor cells in HDF5.

References:
    Z. Huang et al., BCData: a large-scale dataset and benchmark for cell detection and counting, MICCAI 2020.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabel.data.converters._folder import new_folder, source_folder, write_manifest
from fewlabel.data.datalist import DEFAULT
from fewlabel.data.files import natural, relative
from fewlabel.errors import ConfigError, DataError
from fewlabel.files import write_json

SPLITS = {"training": "train", "validation": "validation", "test": "test"}
CLASSES = {"positive": 1, "negative": 2}
_NOTE = (
    "A label map holds one pixel a cell, its center: the value counts the cells in labels, and is 1 (positive) or 2 "
    "(negative) in classes. Pixel measures of such maps mean nothing."
)


def convert_bcdata(source: str | Path, output: str | Path) -> dict[str, Any]:
    """Convert tiles and cell centers, with the split of the authors.

    Read are ``images/{train,validation,test}/*.png`` and, of the same stem,
    ``annotations/{train,validation,test}/{positive,negative}/*.h5`` with a data set ``coordinates``, shape ``(N, 2)``:
    x and y in pixels. Written are ``images`` (the same files), ``points/*.csv`` with columns x, y, class, and, so that
    every reader of instances finds the cells, ``labels`` (uint16, the pixel of each center has its own value) and
    ``classes`` (uint8, 1 positive, 2 negative), in ``datalist.json`` under ``label`` and ``class_label``. The set names
    no patients, so that its items have no group.

    Args:
        source: folder with ``images`` and ``annotations``, or the one above.
        output: folder to make.

    Returns:
        ``{"training": n, "validation": n, "test": n, "positive": n, "negative": n, "moved": n, "without_file": n}``:
        images, cells, centers that went to a pixel beside their own because another cell has it, and images with one
        annotation file only, whose other class counts as absent and which the manifest names.

    Raises:
        ConfigError: no such folder, an ``output`` that exists, or h5py is not installed.
        DataError: listing images without annotation, annotations without image, and what cannot be read.
    """
    root = _root(source_folder(source))
    h5py = _h5py()
    cases = [(name, path) for name, split in SPLITS.items() for path in _images(root, split)]
    _stop_at_orphans(root, cases)
    with new_folder(output, "images", "labels", "classes", "points") as draft:
        lists: dict[str, list[dict[str, str]]] = {name: [] for name in SPLITS}
        facts, problems, read = {}, [], []
        for name, path in cases:
            files = _annotations(root, path)
            read += [path, *files.values()]
            try:
                item, facts[f"{SPLITS[name]}_{path.stem}"] = _convert(draft, SPLITS[name], path, files, h5py)
                lists[name].append(item)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        write_json(draft / DEFAULT, {"name": "BCData", "description": _NOTE, **lists})
        write_manifest(draft, {"converter": "bcdata", "note": _NOTE}, root, read, facts)
    totals = {key: sum(fact[key] for fact in facts.values()) for key in (*CLASSES, "moved")}
    alone = sum(bool(fact["without_file"]) for fact in facts.values())
    return {name: len(items) for name, items in lists.items()} | totals | {"without_file": alone}


def _h5py() -> ModuleType:
    try:
        return importlib.import_module("h5py")
    except ModuleNotFoundError:
        raise ConfigError("the annotations of BCData are HDF5 files, which h5py reads: pip install h5py") from None


def _root(folder: Path) -> Path:
    for root in (folder, folder / "BCData"):
        if all((root / part).is_dir() for part in ("images", "annotations")):
            return root
    raise ConfigError(f"--source {folder} has no folders 'images' and 'annotations': name the unpacked folder BCData")


def _images(root: Path, split: str) -> list[Path]:
    found = sorted((root / "images" / split).glob("*.png"), key=natural)
    if not found and split == "train":
        raise ConfigError(f"--source {root} has no images/train/*.png: unpack the whole of BCData there")
    return found


def _annotations(root: Path, image: Path) -> dict[str, Path]:
    folder = root / "annotations" / image.parent.name
    paths = {name: folder / name / f"{image.stem}.h5" for name in CLASSES}
    return {name: path for name, path in paths.items() if path.is_file()}


def _stop_at_orphans(root: Path, cases: list[tuple[str, Path]]) -> None:
    bare = [path for _, path in cases if not _annotations(root, path)]
    problems = [f"{relative(path, root)} has neither positive nor negative annotations" for path in bare]
    used = {file for _, path in cases for file in _annotations(root, path).values()}
    left = [path for split in SPLITS.values() for path in (root / "annotations" / split).glob("*/*.h5")]
    orphans = sorted((path for path in left if path not in used), key=natural)
    problems += [f"{relative(path, root)} belongs to no image of that split" for path in orphans]
    if problems:
        raise DataError(problems)


def _convert(
    folder: Path, split: str, path: Path, files: dict[str, Path], h5py: ModuleType
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write one tile and return its item and what the manifest says of it."""
    size = _size(path)
    points = {name: _coordinates(file, size, h5py) for name, file in files.items()}
    stem = f"{split}_{path.stem}"
    labels, classes, moved = _maps(points, size)
    shutil.copyfile(path, folder / "images" / f"{stem}.png")
    Image.fromarray(labels).save(folder / "labels" / f"{stem}.png")
    Image.fromarray(classes).save(folder / "classes" / f"{stem}.png")
    rows = [f"{x:g},{y:g},{name}" for name, found in points.items() for x, y in found]
    (folder / "points" / f"{stem}.csv").write_text("\n".join(["x,y,class", *rows]) + "\n", encoding="utf-8")
    item = {"image": f"images/{stem}.png", "label": f"labels/{stem}.png", "class_label": f"classes/{stem}.png"}
    counts = {name: len(points.get(name, ())) for name in CLASSES}
    return item, {**counts, "moved": moved, "without_file": [name for name in CLASSES if name not in files]}


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            image.verify()
            if image.mode not in ("RGB", "RGBA"):
                raise DataError([f"{path} is a picture of mode {image.mode}, not 8-bit RGB; convert it first"])
            return image.height, image.width
    except (OSError, SyntaxError) as error:
        raise DataError([f"{path} cannot be read as a picture ({error}); download it again"]) from None


def _coordinates(path: Path, size: tuple[int, int], h5py: ModuleType) -> NDArray[np.float64]:
    """Return x and y of the cells in a file, shape ``(N, 2)``."""
    try:
        with h5py.File(path, "r") as file:
            points = np.asarray(file["coordinates"], np.float64)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError([f"{path} holds no readable data set 'coordinates' ({error}); download it again"]) from None
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError([f"{path}: 'coordinates' has the shape {points.shape}, expected (N, 2)"])
    limit = np.array([size[1], size[0]])
    outside = ~((points > -1) & (points <= limit)).all(1)  # false for NaN as well
    if outside.any():
        x, y = points[outside][0]
        raise DataError([f"{path}: {outside.sum()} points lie outside of the image, the first at x {x:g}, y {y:g}"])
    return points


def _maps(
    points: dict[str, NDArray[np.float64]], size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], int]:
    """Return instance map, class map and how many centers had to go to a free pixel beside their own."""
    labels, classes = np.zeros(size, np.uint16), np.zeros(size, np.uint8)
    count = moved = 0
    for name, found in points.items():
        for x, y in found:
            own = (min(max(int(y), 0), size[0] - 1), min(max(int(x), 0), size[1] - 1))
            row, column = own if not labels[own] else _free(labels, own)
            count, moved = count + 1, moved + ((row, column) != own)
            labels[row, column], classes[row, column] = count, CLASSES[name]
    return labels, classes, moved


def _free(labels: NDArray[np.uint16], own: tuple[int, int]) -> tuple[int, int]:
    """Return the free pixel nearest to ``own``."""
    rows, columns = np.nonzero(labels == 0)
    nearest = int(np.argmin((rows - own[0]) ** 2 + (columns - own[1]) ** 2))
    return int(rows[nearest]), int(columns[nearest])
