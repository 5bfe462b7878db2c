# SPDX-License-Identifier: Apache-2.0
"""Tiny stained tiles with known nuclei, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

HEMATOXYLIN, EOSIN, DAB = (0.650, 0.704, 0.286), (0.07, 0.99, 0.11), (0.268, 0.570, 0.776)
CENTERS = ((12, 14), (14, 44), (40, 20), (44, 50))


def disks(centers: tuple[tuple[int, int], ...] = CENTERS, radius: int = 7, size: tuple[int, int] = (56, 64)) -> Tensor:
    """(H, W) bool."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([(y - a) ** 2 + (x - b) ** 2 <= radius * radius for a, b in centers]).any(dim=0)


def stained(*amounts: tuple[Tensor, tuple[float, float, float]], noise: float = 0.02, seed: int = 0) -> Tensor:
    """(1, 3, H, W): light that passes (amount (H, W), absorption) of each stain, by Beer and Lambert."""
    density = sum(amount[None] * torch.tensor(stain).view(3, 1, 1) for amount, stain in amounts)
    assert isinstance(density, Tensor)
    generator = torch.Generator().manual_seed(seed)
    return (10**-density + noise * torch.randn(density.shape, generator=generator)).clamp(0.01, 1)[None]


def tissue(seed: int = 0) -> tuple[Tensor, Tensor]:
    """An H&E tile (1, 3, H, W) and its nuclei (H, W): pink stroma on the left half, glass on the right."""
    nuclei = disks()
    stroma = torch.zeros(nuclei.shape)
    stroma[:, :32] = 0.15
    return stained((0.8 * nuclei, HEMATOXYLIN), (stroma + 0.1 * nuclei, EOSIN), seed=seed), nuclei


def overlap(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union."""
    return float((mask.bool() & truth).sum() / (mask.bool() | truth).sum())
