# SPDX-License-Identifier: Apache-2.0
"""How well regions fit organs: the best segmentation that a choice of whole regions can reach."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["region_ceiling"]


def region_ceiling(regions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return for each class the highest Dice of any union of regions.

    With a_r pixels of region r inside of the class, n_r in all, and s pixels of the class, a union U has
    Dice(U) = 2 sum_{r in U} a_r / (sum_{r in U} n_r + s). If D is the highest, then
    sum_{r in U} (2 a_r - D n_r) <= D s for all U, with equality at the best; so the best holds every region with
    a_r / n_r > D / 2 and none with less (those of equal share change nothing). Regions sorted by a_r / n_r therefore
    have the best union as a beginning, and one pass over the beginnings finds it.

    Args:
        regions: any shape, integers; negative pixels belong to no region and are never chosen.
        labels: of the same shape, integers in [0, num_classes) (or floats that hold them); 0 is background.
        num_classes: K, background included.

    Returns:
        (K - 1,) float64 in [0, 1] on the CPU, one for each class from 1; NaN for a class that does not occur.

    Raises:
        ValueError: shapes differ, or a label is out of range.

    Note:
        O(N + R log R) for N pixels and R regions, by class; exact.

    Example:
        >>> regions = torch.tensor([0, 0, 1, 1, 1, 2])
        >>> region_ceiling(regions, torch.tensor([1, 1, 1, 0, 0, 0]), 2).tolist()
        [0.8]
    """
    if regions.shape != labels.shape:
        raise ValueError(f"expected regions and labels of one shape, got {(*regions.shape,)} and {(*labels.shape,)}")
    flat, classes = (x.as_subclass(Tensor).cpu().flatten().long() for x in (regions, labels))
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
        raise ValueError(f"labels must be in [0, {num_classes}), got {int(classes.min())} to {int(classes.max())}")
    names, numbers = torch.unique(flat.clamp(min=-1), return_inverse=True)
    table = torch.bincount(numbers * num_classes + classes, minlength=len(names) * num_classes)
    table = table.view(len(names), num_classes)
    total = table.sum(0)[1:].double()
    table = table[names >= 0]
    size, inside = table.sum(1, keepdim=True).double(), table[:, 1:].double()
    order = (inside / size).argsort(dim=0, descending=True, stable=True)
    reached = 2 * inside.gather(0, order).cumsum(0) / (size.expand_as(inside).gather(0, order).cumsum(0) + total)
    best = torch.cat([torch.zeros_like(total)[None], reached]).amax(0)
    return torch.where(total > 0, best, torch.nan)
