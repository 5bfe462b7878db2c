# SPDX-License-Identifier: Apache-2.0
"""The joint histogram of two label maps: how many pixels each predicted instance shares with each true one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.metrics._runs import Labels, instances, label_array, numbered, runs, sums


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas of P predicted and T true instances, and the K pairs of them that share pixels.

    Instances are numbered from 0 in the order of their values. Pairs are sorted by truth, then by prediction.

    Args:
        pred_ids: (P,) values of the predicted instances in their map, ascending.
        truth_ids: (T,) values of the true instances.
        pred_area: (P,) int64, in pixels.
        truth_area: (T,) int64.
        pred_index: (K,) int64, number of the predicted instance of each pair.
        truth_index: (K,) int64, number of the true one.
        intersection: (K,) int64, pixels that both cover, at least 1.
    """

    pred_ids: NDArray[Any]
    truth_ids: NDArray[Any]
    pred_area: NDArray[np.int64]
    truth_area: NDArray[np.int64]
    pred_index: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    intersection: NDArray[np.int64]

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Both areas of each pair together, (K,) in pixels."""
        return self.pred_area[self.pred_index] + self.truth_area[self.truth_index]

    @cached_property
    def union(self) -> NDArray[np.int64]:
        """Pixels that one or both of each pair cover, (K,)."""
        return self.areas - self.intersection

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, (K,) in 0..1."""
        return self.intersection / self.union

    @property
    def is_empty(self) -> bool:
        """Whether neither map has an instance."""
        return self.pred_ids.size == self.truth_ids.size == 0


def instance_overlap(pred: Labels, truth: Labels) -> Overlap:
    """Count the pixels of every pair of instances in one pass.

    Args:
        pred: (H, W) or (D, H, W), whole numbers of any type: 0 is background, pixels of equal value are one instance.
            Values need not be consecutive. An array, or a tensor on any device.
        truth: as ``pred``, of the same shape.

    Returns:
        What every metric of instances is made from.

    Raises:
        TypeError: maps are neither bool nor real numbers.
        ValueError: shapes differ or are neither 2-D nor 3-D; a value is negative or no whole number.

    Note:
        Pixels are first joined to runs of equal values, and only runs are sorted: time is linear in pixels plus
        R log R in runs, memory is a few bytes a pixel, whatever the values and however many instances there are.

    Example:
        >>> import numpy as np
        >>> found = instance_overlap(np.array([[7, 7, 0], [0, 0, 2]]), np.array([[1, 1, 1], [0, 0, 0]]))
        >>> found.pred_ids.tolist(), found.pred_area.tolist(), found.truth_area.tolist()
        ([2, 7], [1, 2], [3])
        >>> found.pred_index.tolist(), found.intersection.tolist(), found.iou.round(2).tolist()
        ([1], [2], [0.67])
    """
    p, t = label_array(pred, "pred"), label_array(truth, "truth")
    if p.shape != t.shape:
        raise ValueError(f"expected maps of one shape, got {p.shape} and {t.shape}")
    starts, length = runs(p, t)
    pred_ids, p = instances(p.ravel()[starts])
    truth_ids, t = instances(t.ravel()[starts])
    both = (p >= 0) & (t >= 0)
    pairs, pair = numbered(t[both] * pred_ids.size + p[both])
    truth_index, pred_index = np.divmod(pairs, max(1, pred_ids.size))
    histograms = ((p, length, pred_ids.size), (t, length, truth_ids.size), (pair, length[both], pairs.size))
    pred_area, truth_area, shared = (sums(*parts).astype(np.int64) for parts in histograms)  # exact up to 2^53
    return Overlap(pred_ids, truth_ids, pred_area, truth_area, pred_index, truth_index, shared)
