# SPDX-License-Identifier: Apache-2.0
"""Features of many channels as colors that can be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def feature_colors(
    features: Sequence[Tensor], masks: Sequence[Tensor], percentiles: tuple[float, float] = (1.0, 99.0)
) -> list[Tensor]:
    """Return the three principal components of features as red, green and blue.

    One basis and one scale serve all feature maps of the call, so that one color means one thing in all of them. Two
    calls, such as for two networks, share neither: between them only the pattern can be compared, which pixels differ
    and which are alike, not the colors.

    Args:
        features: maps (C, *space) of one network, floating.
        masks: (*space) bool each: the pixels that count; all others are black.
        percentiles: of each component over all pixels that count; they become 0 and 1, what is beyond is cut off.

    Returns:
        (3, *space) float32 in [0, 1] each. Red is the component of the largest variance; components that do not exist
        (C < 3) or do not vary are 0.

    Note:
        Exact, by the covariance of the channels in float64: O(N C^2) for N pixels. The sign of a component is such
        that its largest weight is positive, so that repeats are equal.

    Example:
        >>> colors = feature_colors([torch.tensor([[0.0, 1.0, 2.0]])], [torch.tensor([True, True, False])], (0, 100))
        >>> colors[0][0].tolist()
        [0.0, 1.0, 0.0]
    """
    points = torch.cat([f.detach().cpu().double()[:, m.cpu()] for f, m in zip(features, masks, strict=True)], dim=1).mT
    if not len(points):
        return [f.new_zeros(3, *f.shape[1:], dtype=torch.float32, device="cpu") for f in features]
    center = points.mean(dim=0)
    basis = torch.linalg.eigh((points - center).mT @ (points - center)).eigenvectors.flip(1)[:, :3]
    basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
    low, high = (_percentile((points - center) @ basis, p) for p in percentiles)
    return [
        _colored((f.detach().cpu().double().movedim(0, -1) - center) @ basis, low, high, m.cpu())
        for f, m in zip(features, masks, strict=True)
    ]


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """Of each column, by the nearest rank; ``torch.quantile`` refuses many values."""
    ordered = values.sort(dim=0).values
    return ordered[round(percentile / 100 * (len(ordered) - 1))]


def _colored(components: Tensor, low: Tensor, high: Tensor, mask: Tensor) -> Tensor:
    width = high - low
    scaled = torch.where(width > 1e-9, (components - low) / width.clamp(min=1e-9), 0).clamp(0, 1)
    colors = scaled.new_zeros(3, *mask.shape, dtype=torch.float32)
    colors[: scaled.shape[-1]] = torch.where(mask, scaled.movedim(-1, 0), 0).float()
    return colors
