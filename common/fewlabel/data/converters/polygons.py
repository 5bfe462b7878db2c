# SPDX-License-Identifier: Apache-2.0
"""Outlines to an instance map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from fewlabel.errors import DataError


def instance_map(
    outlines: Sequence[NDArray[np.float64]], shape: tuple[int, int]
) -> tuple[NDArray[np.uint16], list[int], int]:
    """Fill outlines; where several overlap, a pixel belongs to the one that covers the fewest pixels.

    A pixel is inside when its center is: an outline around the corners ``(0, 0)`` and ``(4, 4)`` fills 16 pixels. The
    smaller one wins because it would vanish under the larger; of equally small ones the later wins. The order of the
    outlines has no other influence.

    Args:
        outlines: each of shape ``(V, 2)``: x and y of its corners in pixels, ``(0, 0)`` being the upper left corner of
            the upper left pixel; closed without repeating the first.
        shape: height and width of the map.

    Returns:
        Map of shape ``(H, W)``, uint16, values 1..N without a gap in the order of the outlines; the indices of outlines
        of which no pixel is left (fewer than three corners, thinner than a pixel, outside, or hidden); and how many
        pixels lie in more than one outline.

    Raises:
        DataError: more outlines than uint16 counts.

    Example:
        >>> square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
        >>> labels, lost, shared = instance_map([square, square[:2], square + 1], (3, 4))
        >>> labels.tolist(), lost, shared
        ([[1, 1, 0, 0], [1, 2, 2, 0], [0, 2, 2, 0]], [1], 1)
    """
    if len(outlines) > np.iinfo(np.uint16).max:
        raise DataError(
            [f"{len(outlines)} outlines in one image, but uint16 counts to 65535: cut the image into tiles"]
        )
    fills = [
        polygon(outline[:, 1] - 0.5, outline[:, 0] - 0.5, shape) if len(outline) > 2 else (_NONE, _NONE)
        for outline in outlines
    ]
    labels, depth = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for index in sorted(range(len(fills)), key=lambda k: -len(fills[k][0])):  # stable: of equals the later is on top
        labels[fills[index]] = index + 1
        depth[fills[index]] += 1
    values = np.unique(labels)
    values = values[values > 0]
    table = np.zeros(len(fills) + 1, np.uint16)
    table[values] = np.arange(1, len(values) + 1)
    lost = np.flatnonzero(table[1:] == 0).tolist()
    return table[labels], lost, int((depth > 1).sum())


_NONE = np.zeros(0, np.intp)
