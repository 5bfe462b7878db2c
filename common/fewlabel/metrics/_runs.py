# SPDX-License-Identifier: Apache-2.0
"""Label maps as runs of equal pixels, of which there are far fewer than pixels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Labels: TypeAlias = NDArray[Any] | Tensor
Index: TypeAlias = NDArray[np.int64]


def label_array(labels: Labels, name: str) -> NDArray[Any]:
    """Return a label map, (H, W) or (D, H, W), as an array of bool or real numbers."""
    array = np.ascontiguousarray(as_array(labels))
    if array.dtype.kind not in "iubf":
        raise TypeError(f"{name}: expected bool or whole numbers, got {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(f"{name}: expected (H, W) or (D, H, W), got {array.shape}")
    return array


def as_array(values: Any) -> NDArray[Any]:
    """Return what a tensor on any device, an array or a list holds, as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def runs(*maps: NDArray[Any], by_row: bool = False) -> tuple[Index, Index]:
    """Return where, in raster order, stretches begin in which no map changes, and how long they are.

    Args:
        maps: of one shape.
        by_row: whether stretches end where a row ends.
    """
    begins = np.zeros(maps[0].size, dtype=bool)
    begins[: None if by_row else 1 : max(1, maps[0].shape[-1])] = True
    for flat in (labels.ravel() for labels in maps):
        begins[1:] |= flat[1:] != flat[:-1]
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=begins.size)


def numbered(values: NDArray[Any]) -> tuple[NDArray[Any], Index]:
    """Return the distinct values, ascending, and of each value its place among them."""
    distinct = np.unique(values)
    return distinct, np.searchsorted(distinct, values)  # several times faster than unique's own inverse


def instances(values: NDArray[Any]) -> tuple[NDArray[Any], Index]:
    """Return the values of instances, ascending, and of every run the number of its instance, -1 in the background."""
    ids, index = numbered(values)
    wrong = ids < 0
    if ids.dtype.kind == "f":
        wrong |= ~np.isfinite(ids) | (ids != np.floor(ids))
    if wrong.any():
        raise ValueError(f"expected 0 for background and whole numbers above for instances, got {ids[wrong][0]}")
    background = int(ids.size > 0 and ids[0] == 0)
    return ids[background:], index - background


def sums(index: Index, weight: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the sum of the weights of each index 0..count - 1, float64; an index of -1 counts nowhere."""
    return np.bincount(index + 1, weight, count + 1)[1:]
