# SPDX-License-Identifier: Apache-2.0
"""Compiled k-means: one start after another on each thread, one pass over the points an iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.threads import run_shares, share_count

__all__ = ["assign", "lloyd"]

Array = NDArray[Any]


def lloyd(points: Tensor, draws: Tensor, stride: int, iterations: int, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run all restarts; arguments and results as in :func:`fewlabel.kernels.kmeans.portable.lloyd`."""
    batch, _, dims = points.shape
    restarts, clusters = draws.shape
    centers = torch.empty(batch, restarts, clusters, dims)
    sums = torch.empty(batch, restarts, clusters, dims, dtype=torch.float64)
    counts = torch.empty(batch, restarts, clusters, dtype=torch.int64)
    x, u, stop = points.numpy(), draws.numpy(), limit.numpy()
    c, s, n = centers.numpy(), sums.numpy(), counts.numpy()
    shares = share_count(batch * restarts, points.device)
    run_shares(lambda share: _starts(x, u, stop, c, s, n, stride, iterations, share, shares), shares)
    return centers, sums, counts


def assign(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Label the points; arguments and results as in :func:`fewlabel.kernels.kmeans.portable.assign`."""
    labels = torch.empty(points.shape[:2], dtype=torch.int64)
    sums = torch.empty(centers.shape, dtype=torch.float64)
    counts = torch.empty(centers.shape[:2], dtype=torch.int64)
    x, c, found, s, n = points.numpy(), centers.contiguous().numpy(), labels.numpy(), sums.numpy(), counts.numpy()
    shares = share_count(len(points), points.device)
    run_shares(lambda share: _assignments(x, c, found, s, n, share, shares), shares)
    return labels, sums, counts


@compiled
def _starts(
    points: Array,
    draws: Array,
    limit: Array,
    centers: Array,
    sums: Array,
    counts: Array,
    stride: int,
    iterations: int,
    share: int,
    shares: int,
) -> None:
    """Run every start of this share: seeds, then passes until no center moves."""
    restarts = draws.shape[0]
    for job in range(share, len(points) * restarts, shares):
        b, r = job // restarts, job % restarts
        here = centers[b, r]
        _seed(points[b], draws[r], stride, here)
        far = _add_up(points[b], here, sums[b, r], counts[b, r])
        for _ in range(iterations):
            moved = _update(here, sums[b, r], counts[b, r], points[b, far])
            far = _add_up(points[b], here, sums[b, r], counts[b, r])
            if moved <= limit[b]:
                break


@compiled
def _seed(points: Array, draws: Array, stride: int, centers: Array) -> None:
    """Write k-means++ seeds, by whole numbers only."""
    count = (len(points) + stride - 1) // stride
    weight = np.ones(count, np.int64)
    for k in range(len(draws)):
        total = np.int64(0)
        for i in range(count):
            total += weight[i]
        mark, place, reach = np.int64(draws[k] * np.float64(total)), count - 1, np.int64(0)
        for i in range(count):
            reach += weight[i]
            if reach > mark:
                place = i
                break
        centers[k] = points[place * stride]
        for i in range(count):
            squared = np.int64(0)
            for d in range(points.shape[1]):
                difference = np.int64(points[i * stride, d]) - np.int64(centers[k, d])
                squared += difference * difference
            weight[i] = squared if k == 0 else min(weight[i], squared)


@compiled
def _add_up(points: Array, centers: Array, sums: Array, counts: Array) -> int:
    """Sum up the points of each center; return the index of the point that is furthest from its own."""
    clusters, dims = centers.shape
    sums[:] = 0
    counts[:] = 0
    far, furthest = 0, np.float32(-1)
    for i in range(len(points)):
        label, nearest = 0, np.float32(np.inf)
        for k in range(clusters):
            squared = np.float32(0)
            for d in range(dims):
                difference = points[i, d] - centers[k, d]
                squared += difference * difference
            if squared < nearest:
                label, nearest = k, squared
        counts[label] += 1
        for d in range(dims):
            sums[label, d] += points[i, d]
        if nearest > furthest:
            far, furthest = i, nearest
    return far


@compiled
def _update(centers: Array, sums: Array, counts: Array, far: Array) -> float:
    """Move centers to their means, the first empty one to ``far``; return the largest squared movement."""
    most, is_free = 0.0, True
    for k in range(len(centers)):
        if counts[k] == 0 and not is_free:
            continue
        moved = 0.0
        for d in range(centers.shape[1]):
            new = np.float32(sums[k, d] / counts[k]) if counts[k] > 0 else far[d]
            difference = np.float64(new) - np.float64(centers[k, d])
            moved += difference * difference
            centers[k, d] = new
        is_free = is_free and counts[k] > 0
        most = max(most, moved)
    return most


@compiled
def _assignments(
    points: Array, centers: Array, labels: Array, sums: Array, counts: Array, share: int, shares: int
) -> None:
    """Label the sets of this share."""
    clusters, dims = centers.shape[1:]
    for b in range(share, len(points), shares):
        sums[b] = 0
        counts[b] = 0
        for i in range(points.shape[1]):
            label, nearest = 0, np.float32(np.inf)
            for k in range(clusters):
                squared = np.float32(0)
                for d in range(dims):
                    difference = points[b, i, d] - centers[b, k, d]
                    squared += difference * difference
                if squared < nearest:
                    label, nearest = k, squared
            labels[b, i] = label
            counts[b, label] += 1
            for d in range(dims):
                sums[b, label, d] += points[b, i, d]
