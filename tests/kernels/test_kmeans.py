# SPDX-License-Identifier: Apache-2.0
"""K-means; oracles: SciPy, all partitions of a few points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from fewlabel.kernels.kmeans import Clusters, kmeans
from fewlabel.kernels.kmeans.cpu import lloyd as compiled_lloyd
from fewlabel.kernels.kmeans.portable import lloyd, seeds

BACKENDS = ("cpu", "torch")


def clouds(batch: int, count: int, dims: int, spread: float = 0.15) -> Tensor:
    generator = torch.Generator().manual_seed(dims)
    middle = torch.rand(batch, 4, dims, generator=generator)
    chosen = torch.randint(4, (batch, count), generator=generator)
    places = middle.gather(1, chosen[..., None].expand(-1, -1, dims))
    return places + spread * torch.randn(batch, count, dims, generator=generator)


def assert_consistent(points: Tensor, found: Clusters, atol: float = 1e-4) -> None:
    """Labels are nearest centers, counts and inertia are those of the labels."""
    squared = torch.cdist(points.double(), found.centers).square()
    nearest = squared.gather(2, found.labels[..., None])[..., 0]
    torch.testing.assert_close(nearest, squared.amin(dim=2), atol=atol, rtol=0)
    torch.testing.assert_close(nearest.sum(dim=1), found.inertia, rtol=1e-4, atol=1e-6)
    for b, labels in enumerate(found.labels):
        assert torch.bincount(labels, minlength=found.counts.shape[1]).tolist() == found.counts[b].tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_finds_the_best_of_all_partitions(backend: str, dims: int) -> None:
    points = clouds(2, 7, dims)
    found = kmeans(points, 3, restarts=30, iterations=50, backend=backend)
    for b in range(2):
        best = np.inf
        for labels in itertools.product(range(3), repeat=7):
            x, k = points[b].double().numpy(), np.array(labels)
            spread = sum(((x[k == i] - x[k == i].mean(axis=0)) ** 2).sum() for i in range(3) if (k == i).any())
            best = min(best, spread)
        assert float(found.inertia[b]) == pytest.approx(best, rel=1e-4)
    assert_consistent(points, found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_where_scipy_stays(backend: str) -> None:
    points = clouds(2, 800, 3)
    found = kmeans(points, 4, iterations=200, backend=backend)
    assert_consistent(points, found)
    for b in range(2):
        centers, labels = kmeans2(points[b].double().numpy(), found.centers[b].numpy(), iter=50, minit="matrix")
        np.testing.assert_allclose(centers, found.centers[b].numpy(), atol=1e-4)
        assert (labels == found.labels[b].numpy()).mean() > 0.998
        others = [kmeans2(points[b].double().numpy(), 4, iter=100, minit="++", rng=s)[0] for s in range(5)]
        spreads = [torch.cdist(points[b].double(), torch.from_numpy(c)).amin(1).square().sum() for c in others]
        assert float(found.inertia[b]) <= float(min(spreads)) * 1.0001


@pytest.mark.parametrize(
    ("count", "dims", "clusters"), [(5, 1, 2), (1000, 3, 3), (40_000, 4, 5), (3, 2, 3), (50, 16, 1)]
)
def test_backends_give_the_same_bits(count: int, dims: int, clusters: int) -> None:
    points = clouds(3, count, dims)
    one, other = (kmeans(points, clusters, restarts=4, tolerance=1e-3, seed=2, backend=b) for b in BACKENDS)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_threads_and_repeats_change_nothing(backend: str) -> None:
    points = clouds(3, 40_000, 3)
    whole = kmeans(points, 3, restarts=3, backend=backend)
    alone = kmeans(points[1:2], 3, restarts=3, backend=backend)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threaded = kmeans(points, 3, restarts=3, backend=backend)
    finally:
        torch.set_num_threads(threads)
    for a, b, c in zip(whole, alone, threaded, strict=True):
        assert torch.equal(a[1:2], b) and torch.equal(a, c)


def test_the_seed_counts() -> None:
    points = clouds(1, 500, 2, spread=0.5)
    inertia = {float(kmeans(points, 6, restarts=1, seed=s).inertia) for s in range(8)}
    assert len(inertia) > 1
    assert float(kmeans(points, 6, restarts=20).inertia) <= min(inertia) * 1.05


def test_more_restarts_are_never_worse() -> None:
    points = clouds(4, 300, 2, spread=0.5)
    spread = [kmeans(points, 5, restarts=r).inertia for r in (1, 4, 16)]  # the first draws are the same
    assert bool((spread[1] <= spread[0] * (1 + 1e-9)).all() and (spread[2] <= spread[1] * (1 + 1e-9)).all())
    assert bool((spread[2] < spread[0]).any())


def test_seeds_are_drawn_in_proportion_to_squared_distance() -> None:
    points = torch.tensor([[[0], [1], [3]]])
    draws = torch.stack([torch.zeros(2000), torch.rand(2000, generator=torch.Generator().manual_seed(0))], 1).double()
    found = seeds(points, draws)[0, :, :, 0]
    assert bool((found[:, 0] == 0).all())
    assert abs(float((found[:, 1] == 3).float().mean()) - 0.9) < 0.02


@pytest.mark.parametrize("form", [compiled_lloyd, lloyd])
def test_an_empty_cluster_takes_the_furthest_point(form: object) -> None:
    points = torch.tensor([[[0.0], [0.0], [10.0], [30.0]]])
    draws = torch.zeros(1, 3, dtype=torch.float64)  # seeds 0, 10 (the first with a weight), 30
    assert callable(form)
    centers, _, counts = form(points, draws, 1, 5, torch.zeros(1, dtype=torch.float64))
    assert sorted(centers.flatten().tolist()) == [0, 10, 30]
    assert sorted(counts.flatten().tolist()) == [1, 1, 2]


def test_updates_fill_one_empty_cluster_at_a_time() -> None:
    from fewlabel.kernels.kmeans.cpu import _update
    from fewlabel.kernels.kmeans.portable import _updated

    centers = torch.tensor([[1.0], [7.0], [8.0]])
    sums, counts, far = torch.tensor([[6.0], [0.0], [0.0]]).double(), torch.tensor([3, 0, 0]), torch.tensor([20.0])
    expected = [[2.0], [20.0], [8.0]]
    assert (
        _updated(centers[None, None], sums[None, None], counts[None, None], far[None, None])[0, 0].tolist() == expected
    )
    moved = _update(centers.numpy(), sums.numpy(), counts.numpy(), far.numpy())
    assert centers.tolist() == expected and moved == 13**2


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_points_than_clusters(backend: str) -> None:
    same = kmeans(torch.full((1, 6, 2), 0.3), 3, backend=backend)
    assert same.counts.tolist() == [[6, 0, 0]] and float(same.inertia) == 0
    torch.testing.assert_close(same.centers[0, 0], torch.full((2,), 0.3).double())
    two = kmeans(torch.tensor([[[0.0], [1.0], [1.0]]]), 3, backend=backend)
    assert sorted(two.counts[0].tolist()) == [0, 1, 2] and float(two.inertia) == 0


def test_tolerance_stops_early() -> None:
    points = clouds(1, 2000, 2, spread=0.6)
    loose, tight = (kmeans(points, 6, restarts=1, iterations=100, tolerance=t).inertia for t in (10.0, 0.0))
    assert float(tight) < float(loose)
    once = kmeans(points, 6, restarts=1, iterations=1).inertia
    assert torch.equal(once, loose)


def test_scale_and_shift_of_points_change_nothing_else() -> None:
    points = clouds(1, 300, 3)
    one, other = kmeans(points, 3), kmeans(points * 256 - 1000, 3)
    torch.testing.assert_close(one.inertia * 256**2, other.inertia, rtol=1e-4, atol=0)
    scaled, found = (c[0, c[0, :, 0].argsort()] for c in (one.centers * 256 - 1000, other.centers))
    torch.testing.assert_close(scaled, found, rtol=0, atol=0.5)


def test_half_precision_and_strides() -> None:
    points = clouds(2, 64, 3).to(torch.bfloat16)
    one = kmeans(points.transpose(1, 2).contiguous().transpose(1, 2), 2)
    assert torch.equal(one.labels, kmeans(points.float(), 2).labels)
    assert kmeans(torch.empty(0, 5, 2), 2).labels.shape == (0, 5)


def test_mistakes() -> None:
    points = torch.zeros(1, 4, 2)
    for wrong in (torch.zeros(4, 2), torch.zeros(1, 0, 2), torch.zeros(1, 3, 17)):
        with pytest.raises(ValueError, match=r"expected points \(B, N, D\)"):
            kmeans(wrong, 2)
    for options in (
        {"clusters": 0},
        {"restarts": 0},
        {"iterations": 0},
        {"tolerance": -1.0},
        {"tolerance": float("nan")},
    ):
        with pytest.raises(ValueError, match="expected clusters from 1 to 255"):
            kmeans(points, **{"clusters": 2, **options})
    with pytest.raises(TypeError, match="floating"):
        kmeans(points.long(), 2)
    with pytest.raises(ValueError, match="finite"):
        kmeans(torch.full((1, 4, 2), torch.nan), 2)
    with pytest.raises(ValueError, match="no such backend"):
        kmeans(points, 2, backend="triton")
