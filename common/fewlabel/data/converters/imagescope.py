# SPDX-License-Identifier: Apache-2.0
"""Read outlines that were drawn in Aperio ImageScope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import DataError


@dataclass(frozen=True)
class Annotation:
    """What one XML file holds.

    Attributes:
        outlines: each of shape ``(V, 2)``, x and y in pixels.
        regions: their ``Id``.
        negative: how many regions were left out because they are marked as negative (``NegativeROA="1"``).
        microns_per_pixel: as stated; None where it is not.
    """

    outlines: list[NDArray[np.float64]]
    regions: list[str]
    negative: int
    microns_per_pixel: float | None


def read_annotation(path: str | Path) -> Annotation:
    """Read the outlines of an Aperio ImageScope file: ``Annotations/Annotation/Regions/Region/Vertices/Vertex``.

    Args:
        path: the XML file.

    Returns:
        The outlines of all layers, in the order of the file.

    Raises:
        DataError: the file is no such XML, or a vertex has no numbers X and Y.
    """
    path = Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DataError([f"{path} is not XML: {error}; download it again"]) from None
    if root.tag != "Annotations":
        raise DataError([f"{path} begins with <{root.tag}>, not with <Annotations> as an ImageScope file does"])
    outlines: list[NDArray[np.float64]] = []
    regions: list[str] = []
    negative = 0
    for region in root.iterfind("Annotation/Regions/Region"):
        if region.get("NegativeROA") == "1":
            negative += 1
            continue
        number = region.get("Id", str(len(regions) + 1))
        outlines.append(_vertices(region, f"{path}: region {number}"))
        regions.append(number)
    return Annotation(outlines, regions, negative, _resolution(root))


def _vertices(region: ElementTree.Element, where: str) -> NDArray[np.float64]:
    try:
        corners = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iterfind("Vertices/Vertex")]
    except (KeyError, ValueError):
        raise DataError([f"{where} has a vertex without numbers X and Y; correct or remove it"]) from None
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in corners):
        raise DataError([f"{where} has a vertex that is not finite; correct or remove it"])
    return np.array(corners, np.float64).reshape(-1, 2)


def _resolution(root: ElementTree.Element) -> float | None:
    try:
        value = float(root.get("MicronsPerPixel", ""))
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
