# SPDX-License-Identifier: Apache-2.0
"""Connected components as they are defined: the smallest index spreads to all that are connected. The oracle."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels.grid import neighbor_steps, overlap

__all__ = ["components", "relabel"]


def components(values: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    """Return the components of equal values, numbered in raster order; as many sweeps as a component is long.

    Args:
        values: (B, D, H, W) uint8, int32 or int64, contiguous, not empty; 0 is background.
        connectivity: 4, 8, 6, 18 or 26.

    Returns:
        Labels (B, D, H, W) and their number in each image (B,), int32.
    """
    shape = values.shape
    lowest = torch.arange(values[0].numel(), device=values.device).repeat(shape[0], 1).view(shape)
    pairs = [overlap(step, shape) for step in neighbor_steps(connectivity)]
    while True:
        before = lowest.clone()
        for here, there in pairs:
            same = values[here] == values[there]
            for a, b in ((here, there), (there, here)):
                lowest[a] = torch.where(same, torch.minimum(lowest[a], lowest[b]), lowest[a])
        if torch.equal(before, lowest):
            break
    labels, counts = relabel(torch.where(values != 0, lowest + 1, 0).flatten(1))
    return labels.view(shape), counts


def relabel(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels numbered 1, 2, ... in the order in which they appear, and their number.

    Args:
        labels: (B, N) integers; 0 stays 0.

    Returns:
        Labels (B, N) and their number in each row (B,), int32.
    """
    out, counts = torch.zeros_like(labels, dtype=torch.int32), []
    for row, target in zip(labels, out, strict=True):
        names = list(dict.fromkeys(row[row != 0].tolist()))
        for number, name in enumerate(names, 1):
            target[row == name] = number
        counts.append(len(names))
    return out, torch.tensor(counts, dtype=torch.int32, device=labels.device)
