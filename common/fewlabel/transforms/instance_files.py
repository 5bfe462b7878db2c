# SPDX-License-Identifier: Apache-2.0
"""Write the instances of an image: label map, table of centroids, polygons for QuPath, picture of outlines."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ImageColor

from fewlabel.errors import ConfigError
from fewlabel.transforms.instance_map import Readable, strips
from fewlabel.transforms.instance_table import InstanceTable
from fewlabel.transforms.outlines import Polygon, polygons_of_ends, run_ends
from fewlabel.transforms.overlay import COLORS, Color, overlay
from fewlabel.transforms.png import write_png

OBJECT_TYPES = ("detection", "cell", "annotation")
_PNG_MOST = 65_535
_TILE = 512


@dataclass(frozen=True)
class InstanceFiles:
    """Write what is known of the instances of an image, in pixels of the image and with memory for strips only.

    ====================== ============================================================================================
    ``_instances.png``     label map, 16 bit gray, 0 = background
    ``_instances.tif``     instead of it where there are more than 65,535 instances: 32 bit, tiled, compressed
    ``_centroids.csv``     ``id, x_px, y_px, area_px, class, mean_probability``, a row an instance, in the order of ids
    ``.geojson``           a feature an instance, with the exact outline of its pixels, for QuPath
    ``_overlay.png``       the image with outlines in the colors of the classes
    ====================== ============================================================================================

    Coordinates are those of QuPath: x to the right and y down from the upper left *corner* of the image, so the first
    pixel covers [0, 1] x [0, 1] and its center is (0.5, 0.5).

    Args:
        class_names: of class 0, the background, and the others.
        colors: of classes 1, 2, ..., as RGB or names that Pillow knows (``"red"``, ``"#ff0000"``).
        object_type: what QuPath makes of an outline, ``detection``, ``cell`` or ``annotation``.
        outlines: write polygons.
        overlay: write the picture.
        overlay_max_px: larger images get no picture: QuPath shows the polygons over them.

    Raises:
        ConfigError: an object type or color that does not exist.
    """

    class_names: Sequence[str] = ("background", "nucleus")
    colors: Sequence[Color | str] = COLORS
    object_type: str = "detection"
    outlines: bool = True
    overlay: bool = True
    overlay_max_px: int = 1 << 26

    def __post_init__(self) -> None:
        if self.object_type not in OBJECT_TYPES:
            raise ConfigError(f"object_type: expected one of {', '.join(OBJECT_TYPES)}, received {self.object_type!r}.")
        try:
            self._palette()
        except ValueError as error:
            raise ConfigError(f"colors: {error}.") from None

    def write(
        self, prefix: Path, labels: Readable, table: InstanceTable, picture: Readable | None = None
    ) -> list[Path]:
        """Write the files of one image.

        Args:
            prefix: their path without the endings above.
            labels: (H, W) int32, 0 and 1 ... N.
            table: of these instances.
            picture: windows of the image, (h, w, 3) uint8; None draws no overlay.

        Returns:
            The paths written.
        """
        written = [_write_labels(prefix, labels, table.count), self._write_centroids(prefix, table)]
        if self.outlines:
            written.append(self._write_outlines(prefix, labels, table))
        if self.overlay and picture is not None and labels.shape[0] * labels.shape[1] <= self.overlay_max_px:
            written.append(_beside(prefix, "_overlay.png"))
            write_png(written[-1], (*labels.shape, 3), self._drawn(labels, table, picture))
        return written

    def name_of(self, kind: int) -> str:
        """Return the name of a class."""
        return str(self.class_names[kind]) if kind < len(self.class_names) else f"class {kind}"

    def _palette(self) -> list[Color]:
        return [
            ImageColor.getrgb(c)[:3] if isinstance(c, str) else (int(c[0]), int(c[1]), int(c[2])) for c in self.colors
        ]

    def _write_centroids(self, prefix: Path, table: InstanceTable) -> Path:
        path = _beside(prefix, "_centroids.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("id", "x_px", "y_px", "area_px", "class", "mean_probability"))
            columns = table.centroids, table.area, table.kinds, table.probability
            for n, ((x, y), area, kind, probability) in enumerate(zip(*columns, strict=True), 1):
                rows.writerow((n, f"{x:.2f}", f"{y:.2f}", area, self.name_of(int(kind)), f"{probability:.4f}"))
        return path

    def _write_outlines(self, prefix: Path, labels: Readable, table: InstanceTable) -> Path:
        path, palette = _beside(prefix, ".geojson"), self._palette()
        facts = zip(table.boxes.tolist(), table.area.tolist(), table.kinds.tolist(), table.probability, strict=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"type":"FeatureCollection","features":[')
            for number, (box, area, kind, probability) in enumerate(facts, 1):
                properties = {
                    "objectType": self.object_type,
                    "name": str(number),
                    "classification": {"name": self.name_of(kind), "color": palette[(kind - 1) % len(palette)]},
                    "measurements": {"area_px": area, "mean_probability": round(float(probability), 4)},
                }
                geometry = _geometry(_polygons(labels, number, box))
                feature = {"type": "Feature", "geometry": geometry, "properties": properties}
                file.write(("\n" if number == 1 else ",\n") + json.dumps(feature, separators=(",", ":")))
            file.write("\n]}\n")
        return path

    def _drawn(self, labels: Readable, table: InstanceTable, picture: Readable) -> Iterator[NDArray[np.uint8]]:
        """Yield strips of the picture; each sees a row of its neighbors, so that a line is drawn as in the whole."""
        palette = self._palette()
        colors = [palette[(kind - 1) % len(palette)] for kind in table.kinds] or palette
        for (rows, columns), top in strips(labels.shape):
            wider = slice(max(0, top - 1), min(labels.shape[0], rows.stop + 1)), columns
            drawn = overlay(picture[wider], labels[wider], alpha=0.0, colors=colors, line_px=1)
            yield drawn[top - wider[0].start :][: rows.stop - top]


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a prefix in a hidden folder; what is written under it takes its place under ``target`` in the end.

    Nothing half-written ever has its final name. A killed run leaves the folder behind; the next one for the same
    target removes it. Results of an earlier run are replaced, the label map also where its format has changed.

    Args:
        target: path of the results without their endings.

    Yields:
        ``<folder>/.<name>.work/<name>``; the folder is removed, whatever happens.
    """
    work = target.with_name(f".{target.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work / target.name
        for ending in ("_instances.png", "_instances.tif"):
            _beside(target, ending).unlink(missing_ok=True)
        for file in sorted(path for path in work.iterdir() if path.is_file()):
            file.replace(target.with_name(file.name))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _write_labels(prefix: Path, labels: Readable, count: int) -> Path:
    shape = labels.shape
    if count <= _PNG_MOST:
        path = _beside(prefix, "_instances.png")
        write_png(path, shape, (labels[window].astype(np.uint16) for window, _ in strips(shape)))
        return path
    path = _beside(prefix, "_instances.tif")
    tiles = (
        labels[slice(y, min(y + _TILE, shape[0])), slice(x, min(x + _TILE, shape[1]))].astype(np.uint32)
        for y in range(0, shape[0], _TILE)
        for x in range(0, shape[1], _TILE)
    )
    big = shape[0] * shape[1] > 1 << 29
    tifffile.imwrite(
        path,
        tiles,
        shape=shape,
        dtype=np.uint32,
        tile=(_TILE, _TILE),
        compression="zlib",
        photometric="minisblack",
        metadata=None,
        bigtiff=big,
    )
    return path


def _polygons(labels: Readable, number: int, box: Sequence[int]) -> list[Polygon]:
    """Polygons of an instance, whose box is read in strips: some boxes are as large as the image."""
    top, left, bottom, right = box
    ends: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for (rows, _), first in strips((bottom - top, right - left)):
        window = slice(top + first, top + rows.stop), slice(left, right)
        at_rows, columns = run_ends(labels[window] == number)
        ends.append((at_rows + first, columns))
    return polygons_of_ends(np.concatenate([e[0] for e in ends]), np.concatenate([e[1] for e in ends]), left, top)


def _geometry(polygons: list[Polygon]) -> dict[str, Any]:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
