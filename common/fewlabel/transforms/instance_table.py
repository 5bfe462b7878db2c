# SPDX-License-Identifier: Apache-2.0
"""Area, centroid, box, mean probability and class of each instance, summed up over strips of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.kernels.compiled import compiled


class InstanceTable:
    """One row for each instance of a label map, whose strips may come one by one and in any order.

    Args:
        count: instances are labeled 1 ... count.
        classes: classes besides the background.

    Attributes:
        area: (N,) pixels.
        first: (N,) index of the first pixel in raster order, row x W + column.

    Note:
        80 bytes an instance and 8 for each class; all sums but that of the probability are integers and exact.

    Example:
        >>> table = InstanceTable(2)
        >>> table.add(np.array([[0, 1, 1], [0, 1, 2]], np.int32))
        >>> table.area.tolist(), table.centroids.round(2).tolist(), table.boxes.tolist()
        ([3, 1], [[1.83, 0.83], [2.5, 1.5]], [[0, 1, 2, 3], [1, 2, 2, 3]])
    """

    def __init__(self, count: int, classes: int = 1) -> None:
        self.count, self.classes = count, classes
        self.area = np.zeros(count, np.int64)
        self.first = np.full(count, np.iinfo(np.int64).max)
        self._sums = np.zeros((count, 2), np.int64)
        self._probability = np.zeros(count)
        self._votes = np.zeros((count, classes), np.int64)
        self._boxes = np.tile(np.array([2**31 - 1, 2**31 - 1, 0, 0], np.int64), (count, 1))

    def add(
        self,
        labels: NDArray[np.int32],
        probability: NDArray[np.float32] | None = None,
        kinds: NDArray[np.uint8] | None = None,
        top: int = 0,
    ) -> None:
        """Add a strip.

        Args:
            labels: (H, W), 0 where there is no instance.
            probability: (H, W), or None.
            kinds: class of each pixel, 1 ... classes, (H, W), or None: all are of class 1.
            top: row of the whole image in which the strip begins.
        """
        values = np.zeros((1, 1), np.float32) if probability is None else np.ascontiguousarray(probability)
        votes = np.ones((1, 1), np.uint8) if kinds is None else np.ascontiguousarray(kinds)
        table = self.area, self.first, self._sums, self._probability, self._votes, self._boxes
        _measure(np.ascontiguousarray(labels), values, probability is not None, votes, kinds is not None, top, table)

    @property
    def centroids(self) -> NDArray[np.float64]:
        """(N, 2) as (x, y) in pixels from the upper left corner of the image: the center of its first pixel is 0.5."""
        return self._sums / self.area[:, None] + 0.5

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(N, 4): first row, first column, row after the last, column after the last."""
        return self._boxes

    @property
    def probability(self) -> NDArray[np.float64]:
        """(N,) mean over the pixels of an instance."""
        return self._probability / self.area

    @property
    def kinds(self) -> NDArray[np.int64]:
        """(N,) class of most pixels, 1 ... classes; of several the lowest."""
        return self._votes.argmax(1) + 1


@compiled
def _measure(
    labels: NDArray[Any],
    probability: NDArray[Any],
    has_probability: bool,
    kinds: NDArray[Any],
    has_kinds: bool,
    top: int,
    table: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
) -> None:
    area, first, sums, total, votes, boxes = table
    for row in range(labels.shape[0]):
        y = top + row
        for x in range(labels.shape[1]):
            n = labels[row, x] - 1
            if n < 0:
                continue
            area[n] += 1
            first[n] = min(first[n], y * labels.shape[1] + x)
            sums[n, 0] += x
            sums[n, 1] += y
            total[n] += probability[row, x] if has_probability else 1.0
            votes[n, kinds[row, x] - 1 if has_kinds else 0] += 1
            boxes[n, 0] = min(boxes[n, 0], y)
            boxes[n, 1] = min(boxes[n, 1], x)
            boxes[n, 2] = max(boxes[n, 2], y + 1)
            boxes[n, 3] = max(boxes[n, 3], x + 1)
