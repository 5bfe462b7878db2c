# SPDX-License-Identifier: Apache-2.0
"""The public function: checks, whole-number points, the best restart."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend

GRID = 2**18  # points become whole numbers from -GRID to GRID: sums of their squares stay within int64
SEEDING_POINTS = 2**14  # k-means++ draws from at most so many, evenly spaced
MOST_POINTS = 2**22
MOST_DIMENSIONS = 16


class Clusters(NamedTuple):
    """What :func:`kmeans` returns.

    Args:
        labels: (B, N) int64, the nearest center of each point.
        centers: (B, K, D) float64.
        inertia: (B,) float64, the sum of squared distances of points to their centers.
        counts: (B, K) int64, points of each cluster.
    """

    labels: Tensor
    centers: Tensor
    inertia: Tensor
    counts: Tensor


def kmeans(
    points: Tensor,
    clusters: int,
    *,
    restarts: int = 10,
    iterations: int = 20,
    tolerance: float = 0.0,
    seed: int = 0,
    backend: str = "auto",
) -> Clusters:
    r"""Partition each set of points into clusters of small spread, by Lloyd's algorithm from k-means++ seeds.

    .. math:: \min_{S_1..S_K} \sum_k \sum_{x \in S_k} \lVert x - c_k \rVert^2, \qquad c_k = \text{mean } S_k

    All restarts of all sets run at once; of each set the restart of least inertia is returned.

    Args:
        points: (B, N, D), floating; 1 <= N <= 2^22, 1 <= D <= 16; finite.
        clusters: K, 1 to 255.
        restarts: how many times to start from new seeds.
        iterations: most updates of the centers, >= 1.
        tolerance: stop when no center moves further than this, in the unit of the points; 0 stops when none moves.
        seed: of the draws. Every set gets the same ones, so a set's result does not depend on its place in a batch.
        backend: ``auto``, ``cpu`` (compiled) or ``torch``; ``FEWLABEL_BACKEND`` replaces ``auto``.

    Returns:
        Labels, centers, inertia and counts. Of equally near centers the first counts, of equally good restarts too. A
        cluster that loses its points restarts at the point that is furthest from its center; it stays empty only where
        a set has fewer distinct points than clusters.

    Raises:
        ValueError: a shape or number is out of its range.
        TypeError: points are not floating.

    Note:
        Points are rounded to 2^-19 of the widest range of their set, and results are those of the rounded points.
        k-means++ draws from at most 2^14 evenly spaced points of each set. Time is B restarts iterations N K D. The
        compiled form runs each start on one thread and needs no memory beyond points and labels; the other takes about
        30 bytes a point and restart. Not differentiable.

    References:
        Lloyd, Least squares quantization in PCM, IEEE TIT 28(2), 1982. Arthur and Vassilvitskii, k-means++: The
        advantages of careful seeding, SODA 2007, section 2.2.

    Example:
        >>> found = kmeans(torch.tensor([[[0.0], [0.1], [5.0], [5.1], [5.2]]]), 2)
        >>> found.counts.tolist(), [round(c, 3) for c in found.centers.flatten().tolist()]
        ([[3, 2]], [5.1, 0.05])
    """
    _check(points, clusters, restarts, iterations, tolerance)
    chosen = _backend.resolve("kmeans", points.device, backend, available=_available(points.device))
    form: Any = _backend.form("kmeans", chosen)
    whole, middle, step = _whole(points.detach().as_subclass(Tensor))
    draws = torch.rand(restarts, clusters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    limit = (tolerance / step).square()
    stride = -(-whole.shape[1] // SEEDING_POINTS)
    total = whole.long().square().sum(dim=(1, 2)).double()
    centers, sums, counts = form.lloyd(whole, draws.to(points.device), stride, iterations, limit)
    best = _inertia(centers, sums, counts, total[:, None]).argmin(dim=1)
    centers = centers[torch.arange(len(centers), device=best.device), best]
    labels, sums, counts = form.assign(whole, centers)
    inertia = _inertia(centers[:, None], sums[:, None], counts[:, None], total[:, None])[:, 0]
    return Clusters(labels, centers.double() * step[:, None, None] + middle, inertia * step.square(), counts)


def _check(points: Tensor, clusters: int, restarts: int, iterations: int, tolerance: float) -> None:
    if not isinstance(points, Tensor) or not points.is_floating_point():
        raise TypeError(f"expected a floating tensor, got {getattr(points, 'dtype', type(points).__name__)}")
    if points.ndim != 3 or not 1 <= points.shape[1] <= MOST_POINTS or not 1 <= points.shape[2] <= MOST_DIMENSIONS:
        expected = f"(B, N, D) with N from 1 to {MOST_POINTS} and D from 1 to {MOST_DIMENSIONS}"
        raise ValueError(f"expected points {expected}, got {tuple(points.shape)}")
    if not 1 <= clusters <= 255 or restarts < 1 or iterations < 1 or not tolerance >= 0:
        got = f"clusters={clusters}, restarts={restarts}, iterations={iterations}, tolerance={tolerance}"
        raise ValueError(f"expected clusters from 1 to 255, restarts and iterations >= 1, tolerance >= 0, got {got}")
    if not bool(points.isfinite().all()):
        raise ValueError("expected finite points, got inf or nan")


def _available(device: torch.device) -> tuple[str, ...]:
    return ("cpu", "torch") if device.type == "cpu" else ("torch",)


def _whole(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return points as whole numbers (float32), the middle (B, 1, D) they are counted from, and their step (B,)."""
    wide = points.double()
    low, high = wide.amin(dim=1, keepdim=True), wide.amax(dim=1, keepdim=True)
    middle, reach = (low + high) / 2, (high - low).amax(dim=(1, 2)) / 2
    step = torch.where(reach > 0, reach / GRID, 1.0)
    return ((wide - middle) / step[:, None, None]).round().float().contiguous(), middle, step


def _inertia(centers: Tensor, sums: Tensor, counts: Tensor, total: Tensor) -> Tensor:
    """Sum of squared distances, from sums over clusters: (B, R, K, D), (B, R, K, D), (B, R, K), (B, 1) to (B, R).

    Terms are added one by one, because torch may add the same numbers in another order in another batch.
    """
    wide, value = centers.double(), total
    for k in range(centers.shape[2]):
        for d in range(centers.shape[3]):
            value = value + wide[..., k, d] * (counts[..., k] * wide[..., k, d] - 2 * sums[..., k, d])
    return value.clamp(min=0)
