# SPDX-License-Identifier: Apache-2.0
"""K-means in plain PyTorch, for every device: one pass serves all restarts of all sets.

A pass compares each point with the centers of every restart, elementwise, and adds points up as whole numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["assign", "lloyd"]


def lloyd(points: Tensor, draws: Tensor, stride: int, iterations: int, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run all restarts.

    Args:
        points: (B, N, D) float32 whole numbers.
        draws: (R, K) float64 in [0, 1).
        stride: seeds are drawn among every stride-th point.
        iterations: most updates.
        limit: (B,) float64, squared movement at which a restart stops.

    Returns:
        Centers (B, R, K, D) float32 of the last pass, and sums (B, R, K, D) float64 and counts (B, R, K) int64 of the
        points that were nearest to them.
    """
    centers = seeds(points[:, ::stride].long(), draws).float()
    sums, counts, far = _pass(points, centers)
    moving = torch.ones(centers.shape[:2], dtype=torch.bool, device=points.device)
    for _ in range(iterations):
        new = _updated(centers, sums, counts, far)
        moved = squared_distance(new.double(), centers.double()).amax(dim=2)
        centers = torch.where(moving[..., None, None], new, centers)
        moving = moving & (moved > limit[:, None])
        sums, counts, far = _pass(points, centers)
        if not bool(moving.any()):
            break
    return centers, sums, counts


def assign(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels (B, N) int64, sums (B, K, D) float64 and counts (B, K) int64 of centers (B, K, D)."""
    labels, _ = _nearest(points, centers[:, None])
    sums, counts = _sums(points, labels, centers.shape[1])
    return labels[:, 0], sums[:, 0], counts[:, 0]


def seeds(points: Tensor, draws: Tensor) -> Tensor:
    """Draw k-means++ seeds: each next one with a chance in proportion to its squared distance to those before.

    Args:
        points: (B, N, D) int64.
        draws: (R, K) float64 in [0, 1).

    Returns:
        (B, R, K, D) int64.
    """
    batch, count, _ = points.shape
    restarts, clusters = draws.shape
    weight = torch.ones(batch, restarts, count, dtype=torch.int64, device=points.device)
    found: list[Tensor] = []
    for k in range(clusters):
        reach = weight.cumsum(dim=2)
        mark = (draws[:, k] * reach[..., -1].double()).long()
        place = torch.searchsorted(reach, mark[..., None], right=True).clamp(max=count - 1)
        found.append(points.gather(1, place.expand(-1, -1, points.shape[2])))  # (B, R, D)
        squared = squared_distance(points[:, None], found[-1][:, :, None])
        weight = squared if k == 0 else torch.minimum(weight, squared)
    return torch.stack(found, dim=2)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Sum of squared differences over the last dimension, term by term."""
    total = (a[..., 0] - b[..., 0]).square()
    for d in range(1, a.shape[-1]):
        total = total + (a[..., d] - b[..., d]).square()
    return total


def _pass(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, counts, and the point (B, R, D) that is furthest from its center."""
    labels, nearest = _nearest(points, centers)
    sums, counts = _sums(points, labels, centers.shape[2])
    far = nearest.argmax(dim=2)[..., None].expand(-1, -1, points.shape[2])
    return sums, counts, points.gather(1, far)


def _nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return which center is nearest and its squared distance, both (B, R, N)."""
    nearest = torch.full((*centers.shape[:2], points.shape[1]), torch.inf, device=points.device)
    labels = torch.zeros(nearest.shape, dtype=torch.int64, device=points.device)
    for k in range(centers.shape[2]):
        squared = squared_distance(points[:, None], centers[:, :, k, None])
        closer = squared < nearest
        nearest = torch.where(closer, squared, nearest)
        labels = torch.where(closer, k, labels)
    return labels, nearest


def _sums(points: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return sums (B, R, K, D) and counts (B, R, K) of points by label."""
    wide, sums, counts = points.double(), [], []
    for k in range(clusters):
        inside = labels == k
        sums.append(inside.double() @ wide)
        counts.append(inside.sum(dim=2))
    return torch.stack(sums, dim=2), torch.stack(counts, dim=2)


def _updated(centers: Tensor, sums: Tensor, counts: Tensor, far: Tensor) -> Tensor:
    """Return the means; the first empty cluster gets the furthest point, further ones stay where they are."""
    means = (sums / counts.clamp(min=1)[..., None]).float()
    empty = counts == 0
    first = empty & (empty.cumsum(dim=2) == 1)
    new = torch.where(empty[..., None], centers, means)
    return torch.where(first[..., None], far[:, :, None], new)
