# SPDX-License-Identifier: Apache-2.0
"""The operators on a GPU, against the CPU's results: large enough that programs meet, run twice for determinism."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from tests.kernels._contrast import unit

from fewlabel.kernels.components import connected_components, fill_holes, largest_component, relabel, remove_small
from fewlabel.kernels.contrast import all_negative, info_nce, masked_lse, region_contrast, supcon
from fewlabel.kernels.distance import nearest_seed, voronoi_labels
from fewlabel.kernels.regions import region_index, region_mean, sample_pixels, sample_regions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SPACES = [((3, 517, 641), 4), ((3, 517, 641), 8), ((2, 33, 70, 129), 6), ((2, 33, 70, 129), 18), ((2, 33, 70, 129), 26)]


def _fields(shape: tuple[int, ...], smooth: float) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).numpy()
    smoothed = [ndimage.gaussian_filter(image, smooth) for image in noise] if smooth else noise
    return torch.stack([torch.from_numpy(image) for image in smoothed])


@pytest.mark.parametrize("smooth", [0.0, 3.0])
@pytest.mark.parametrize(("shape", "connectivity"), SPACES)
def test_components(shape: tuple[int, ...], connectivity: int, smooth: float) -> None:
    mask = _fields(shape, smooth) > 0
    values = mask.int() + (_fields(shape, 2 * smooth + 1) > 0).int()
    for operands, by_label in ((mask, False), (values, True)):
        expected = connected_components(operands, connectivity, by_label=by_label)
        for _ in range(2):
            got = connected_components(operands.cuda(), connectivity, by_label=by_label)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
    faces = connectivity if connectivity in (4, 6) else {8: 4, 18: 6, 26: 6}[connectivity]
    for name, call in {
        "largest": lambda x: largest_component(x, connectivity),
        "small": lambda x: remove_small(x, connectivity, 20),
        "holes": lambda x: fill_holes(x, faces),
        "relabel": lambda x: relabel(x.int() * 7, x.ndim - 1)[0],
    }.items():
        assert torch.equal(call(mask.cuda()).cpu(), call(mask)), name


@pytest.mark.parametrize(("shape", "spacing"), [((3, 517, 641), (1.0, 1.0)), ((2, 33, 70, 129), (2.5, 0.7, 0.7))])
def test_distance(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    seeds = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 1e-3
    seeds[0] = False
    expected = nearest_seed(seeds, len(spacing), spacing=spacing, backend="torch")
    got = nearest_seed(seeds.cuda(), len(spacing), spacing=spacing)
    assert torch.equal(got[0].cpu(), expected[0])
    assert torch.equal(got[1].cpu(), expected[1])
    points = seeds.int() * torch.arange(1, seeds.numel() + 1).view(shape).int()
    assert torch.equal(
        voronoi_labels(points.cuda(), len(spacing), spacing=spacing).cpu(),
        voronoi_labels(points, len(spacing), spacing=spacing),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.02), (torch.float16, 0.02)])
@pytest.mark.parametrize("channels", [16, 60, 128, 256])
@pytest.mark.parametrize(("temperature", "unit_norm"), [(0.07, True), (0.07, None), (0.01, None)])
def test_contrast(
    channels: int, dtype: torch.dtype, tolerance: float, temperature: float, unit_norm: bool | None
) -> None:
    """Every loss and both gradients against float64, bit-equal when repeated."""
    query, key = (unit(2, 1031, channels, seed=seed, dtype=dtype).cuda() for seed in (0, 1))
    labels = torch.randint(0, 5, (2, 1031), generator=torch.Generator().manual_seed(2)).cuda()
    keep = torch.rand(2, 1031, generator=torch.Generator().manual_seed(3)).cuda() < 0.7
    calls = {
        "info_nce": lambda q, k: info_nce(q, k, temperature, unit_norm=unit_norm),
        "symmetric": lambda q, k: info_nce(q, k, temperature, unit_norm=unit_norm, symmetric=True),
        "all negative": lambda q, k: all_negative(q, k, temperature, unit_norm=unit_norm),
        "supcon": lambda q, k: supcon(q, labels, temperature, unit_norm=unit_norm),
        "labels": lambda q, k: sum(
            part.mean() for part in masked_lse(q, k, labels, labels, temperature, unit_norm=unit_norm)
        ),
        "mask": lambda q, k: masked_lse(q, k, temperature=temperature, key_mask=keep, unit_norm=unit_norm)[0].mean(),
    }
    for name, call in calls.items():
        results = []
        for exact in (False, False, True):
            leaves = [(side.double() if exact else side).clone().requires_grad_() for side in (query, key)]
            loss = call(*leaves)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
            results.append([loss.detach(), *(g for g in grads if g is not None)])
        assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True)), name
        value, *gradients = results[0]
        assert value.item() == pytest.approx(results[2][0].item(), rel=1e-4), name
        for gradient, expected in zip(gradients, results[2][1:], strict=True):
            error = (gradient.double() - expected).abs().max() / expected.abs().max()
            assert error <= tolerance, (name, error.item())


def test_float32_keeps_its_precision_over_many_keys() -> None:
    """Tensor cores cut off what they add: left to themselves, their error would grow with the number of keys."""
    query, key = (unit(1, 16384, 64, seed=seed).cuda() for seed in (0, 1))
    key = torch.nn.functional.normalize(query + 0.1 * key, dim=-1)
    found = []
    for side in (query, query.double()):
        leaf = side.clone().requires_grad_()
        lse, _ = masked_lse(leaf, key.to(side.dtype), unit_norm=True)
        found.append((lse.detach().double(), torch.autograd.grad(lse.sum(), leaf)[0].double()))
    for got, exact in zip(*found, strict=True):
        assert (got - exact).abs().max() <= 4e-6 * exact.abs().max()


def test_supcon_where_one_of_its_operators_has_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiled log-sum-exp runs on a GPU, the compiled sums of labels do not."""
    features, labels = unit(1, 300, 16).cuda(), torch.arange(300).view(1, 300).cuda() % 5
    expected = supcon(features, labels, backend="reference")
    monkeypatch.setenv("FEWLABEL_BACKEND", "cpu")
    assert supcon(features, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_region_contrast() -> None:
    query, key = (unit(2, 9, 21, 64, seed=seed).cuda() for seed in (0, 1))
    valid = torch.rand(2, 9, generator=torch.Generator().manual_seed(3)).cuda() < 0.8
    for negatives in ("image", "batch"):
        expected = region_contrast(query.double(), key.double(), valid, negatives=negatives)
        assert region_contrast(query, key, valid, negatives=negatives).item() == pytest.approx(
            expected.item(), rel=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", ["planes", "rows"])
@pytest.mark.parametrize(("shape", "channels"), [((3, 217, 341), 19), ((2, 17, 70, 65), 128)])
def test_regions(shape: tuple[int, ...], channels: int, layout: str, dtype: torch.dtype) -> None:
    """Sums, means and gradients against float64 on the CPU, bit-equal when repeated; the same pixels are drawn."""
    labels = connected_components(_fields(shape, 2.0) > 0, 4 if len(shape) == 3 else 6)[0] - 1
    features = torch.randn(shape[0], channels, *shape[1:], generator=torch.Generator().manual_seed(0)).to(dtype)
    formats = {3: torch.channels_last, 4: torch.channels_last_3d}
    if layout == "rows":
        features = features.to(memory_format=formats[len(shape)])
    index = region_index(labels, spatial_dims=len(shape) - 1)
    remote = region_index(labels.cuda(), spatial_dims=len(shape) - 1)
    for name, tensor in index.tensors().items():
        assert torch.equal(tensor, remote.tensors()[name].cpu()), name
    results = []
    for leaf, at in ((features.cuda(), remote), (features.cuda(), remote), (features.double(), index)):
        leaf.requires_grad_()
        means = region_mean(leaf, at)
        results.append((means.detach(), torch.autograd.grad(means.square().sum(), leaf)[0]))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.01, torch.float64: 1e-12}[dtype]
    for got, expected in zip(results[0], results[2], strict=True):
        assert (got.double().cpu() - expected).abs().max() <= tolerance * expected.abs().max()
    regions = sample_regions(index, 16, seed=1, step=2, min_pixels=3)
    assert torch.equal(sample_regions(remote, 16, seed=1, step=2, min_pixels=3).cpu(), regions)
    pixels = sample_pixels(index, regions, 32, seed=1, step=2)
    assert torch.equal(sample_pixels(remote, regions.cuda(), 32, seed=1, step=2).cpu(), pixels)


def test_no_operator_waits_for_the_gpu() -> None:
    """Forward and backward under torch's watch, which raises where the host waits for an answer."""
    query, key = (unit(2, 1031, 32, seed=seed).cuda().requires_grad_() for seed in (0, 1))
    some = query[:, :100].detach().unflatten(1, (5, 20)).requires_grad_()
    labels = (torch.arange(2 * 1031).view(2, 1031) % 5).cuda()
    regions = (torch.arange(2 * 64 * 64).view(2, 64, 64) // 200 % 9).int().cuda()
    features = torch.randn(2, 16, 64, 64, device="cuda", requires_grad=True)
    index = region_index(regions, num_labels=9)
    calls = {
        "info_nce": lambda: info_nce(query, key),
        "symmetric": lambda: info_nce(query, key, symmetric=True),
        "all_negative": lambda: all_negative(query, key),
        "self": lambda: masked_lse(query, query, exclude_self=True)[0].sum(),
        "labels": lambda: masked_lse(query, key, labels, labels)[1].sum(),
        "supcon": lambda: supcon(query, labels),
        "region_contrast": lambda: region_contrast(some, some.detach()),
        "region_mean": lambda: region_mean(features, index).sum(),
        "samples": lambda: sample_pixels(index, sample_regions(index, 4, seed=0, step=0), 8, seed=0, step=0),
        "components": lambda: connected_components(regions > 3, 8),
        "largest": lambda: largest_component(regions > 3, 8),
        "distance": lambda: nearest_seed(regions == 0, 2),
    }
    for call in calls.values():
        call()  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in calls.values():
            result = call()
            if isinstance(result, torch.Tensor) and result.requires_grad:
                result.backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
