# SPDX-License-Identifier: Apache-2.0
"""Squared distances in plain PyTorch, for devices without a kernel of their own: all places of a line against all.

Axis by axis, each place of a line takes the best sum over the places of that line, so an axis of n places costs n
operations a pixel; lines are taken a few at a time to bound the memory. Nothing waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["nearest"]

_SUMS = 2**23  # that exist at a time
_NONE = 2**31 - 1  # in place of -1 while the smallest index is sought


def nearest(seeds: Tensor, spacing: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Dense form, one axis at a time; see :func:`fewlabel.kernels.distance.reference.nearest`."""
    pixels = torch.arange(seeds[0].numel(), dtype=torch.int32, device=seeds.device).view(seeds.shape[1:])
    cost = torch.where(seeds != 0, 0.0, math.inf).double()
    index = torch.where(seeds != 0, pixels, _NONE)
    for axis in (1, 2, 3):
        n = seeds.shape[axis]
        if n == 1:
            continue
        place = torch.arange(n, device=seeds.device)
        added = ((place[:, None] - place).double() * spacing[axis - 1]).square()
        lines = cost.transpose(axis, -1).reshape(-1, n), index.transpose(axis, -1).reshape(-1, n)
        parts = zip(*(part.split(max(1, _SUMS // n**2)) for part in lines), strict=True)
        found = [_least(part_cost, part_index, added) for part_cost, part_index in parts]
        shape = cost.transpose(axis, -1).shape
        cost, index = (torch.cat(whole).view(shape).transpose(axis, -1) for whole in zip(*found, strict=True))
    return cost.contiguous(), index.masked_fill(index == _NONE, -1).contiguous()


def _least(cost: Tensor, index: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Least sums (L, n) over the last axis of (L, n, n), and of the places that reach them the smallest index."""
    sums = cost[:, None] + added
    least = sums.amin(dim=-1)
    return least, index[:, None].where(sums == least[..., None], _NONE).amin(dim=-1)
