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
    """Return a label map, (H, W) or (D, H, W), as an array of bool or integers."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected bool or integers, got {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(f"{name}: expected (H, W) or (D, H, W), got {array.shape}")
    return array


def runs(*maps: NDArray[Any], by_row: bool = False) -> tuple[Index, Index]:
    """Return where, in raster order, stretches begin in which no map changes, and how long they are.

    Args:
        maps: of one shape.
        by_row: whether stretches end where a row ends.
    """
    begins = np.zeros(maps[0].size, dtype=bool)
    begins[: 1 if not by_row else None : maps[0].shape[-1] or 1] = True
    for flat in (labels.ravel() for labels in maps):
        begins[1:] |= flat[1:] != flat[:-1]
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=begins.size)


def instances(values: NDArray[Any]) -> tuple[NDArray[Any], Index]:
    """Return the values of instances, ascending, and of every run the number of its instance, -1 in the background."""
    ids, index = np.unique(values, return_inverse=True)
    if ids.size and ids[0] < 0:
        raise ValueError(f"expected 0 for background and positive values for instances, got {ids[0]}")
    background = int(ids.size > 0 and ids[0] == 0)
    return ids[background:], index - background


def sums(index: Index, weight: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the sum of the weights of each index 0..count - 1; an index of -1 counts nowhere."""
    return np.bincount(index + 1, weight, count + 1)[1:]
