# SPDX-License-Identifier: Apache-2.0
"""The nearest seed as it is defined: every pixel asks every seed. The oracle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["nearest"]


def nearest(seeds: Tensor, spacing: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Return the squared distance to the nearest seed, and which it is.

    Args:
        seeds: (B, D, H, W) uint8, contiguous; not 0 is a seed.
        spacing: between pixels along D, H and W.

    Returns:
        (dz^2 + dy^2) + dx^2 in float64, each d rounded after the product with the spacing, and the raster index of the
        seed in its image, int32; both (B, D, H, W). Of several seeds the first in raster order. Without seeds inf, -1.
    """
    squared = torch.full(seeds.shape, math.inf, dtype=torch.float64, device=seeds.device)
    index = torch.full(seeds.shape, -1, dtype=torch.int32, device=seeds.device)
    axes = [torch.arange(n, device=seeds.device).double() for n in seeds.shape[1:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
    steps = torch.tensor(spacing, dtype=torch.float64, device=seeds.device)
    for b in range(len(seeds)):
        best, winner = squared[b].view(-1), index[b].view(-1)
        for seed in seeds[b].flatten().nonzero().flatten().tolist():
            z, y, x = ((places - places[seed]) * steps).square().unbind(-1)
            far = (z + y) + x
            closer = far < best
            best[closer], winner[closer] = far[closer], seed
    return squared, index
