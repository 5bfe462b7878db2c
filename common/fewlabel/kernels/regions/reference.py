# SPDX-License-Identifier: Apache-2.0
"""Region sums and maxima by one or two PyTorch operators, on every device; autograd does the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels.regions.index import RegionIndex


def region_sum(features: Tensor, index: RegionIndex, mean: bool = False) -> Tensor:
    """Sum, or mean, of (B, C, *spatial) features by region: (B, L, C), float32, or float64 for float64 features."""
    flat = features.flatten(2)
    batch, channels, _ = flat.shape
    rows = flat.transpose(1, 2).to(torch.promote_types(flat.dtype, torch.float32)).flatten(0, 1)
    slots = _slots(index) + torch.arange(batch, device=flat.device).unsqueeze(1) * (index.regions + 1)
    total = rows.new_zeros(batch * (index.regions + 1), channels).index_add(0, slots.flatten(), rows)
    total = total.view(batch, index.regions + 1, channels)[:, :-1]
    return total / index.sizes if mean else total


def region_argmax(flat: Tensor, index: RegionIndex) -> Tensor:
    """Return the first pixel of the largest value of each region and channel: (B, L, C), int64, -1 if empty."""
    batch, channels, pixels = flat.shape
    slots = _slots(index).unsqueeze(1).expand_as(flat)
    shape = batch, channels, index.regions + 1
    largest = flat.new_zeros(shape).scatter_reduce(2, slots, flat, "amax", include_self=False).gather(2, slots)
    is_largest = (flat == largest) | (flat.isnan() & largest.isnan())
    position = torch.where(is_largest, torch.arange(pixels, device=flat.device), pixels)
    first = position.new_full(shape, pixels).scatter_reduce(2, slots, position, "amin")
    return torch.where(first == pixels, -1, first)[:, :, :-1].transpose(1, 2)


def _slots(index: RegionIndex) -> Tensor:
    """(B, S) region of each pixel; ignored pixels have one slot of their own behind the regions."""
    ids = index.ids.flatten(1).long()
    return torch.where(ids < 0, index.regions, ids)
