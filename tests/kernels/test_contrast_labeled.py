# SPDX-License-Identifier: Apache-2.0
"""A set against itself, supervised contrast and region contrast; oracles: loops over pairs in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tests.kernels._contrast import tiles, unit  # noqa: F401 - a fixture
from tests.kernels._threads import torch_threads
from torch import Tensor
from torch.nn import functional

from fewlabel.kernels.contrast import masked_lse, region_contrast, supcon

BACKENDS = ("cpu", "reference")
VARIANTS = ("out", "in")


def labels_of(*shape: int, classes: int = 3) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(5))


def supcon_by_loops(z: Tensor, labels: Tensor, temperature: float, variant: str) -> Tensor:
    """One anchor at a time, one positive at a time, as the paper writes it."""
    terms = []
    for b in range(z.shape[0]):
        for i in range(z.shape[1]):
            logits = z[b] @ z[b, i] / temperature
            others = [j for j in range(z.shape[1]) if j != i]
            positives = [j for j in others if labels[b, j] == labels[b, i]]
            if not positives:
                continue
            log_ratio = logits[positives] - torch.logsumexp(logits[others], dim=0)
            if variant == "out":
                terms.append(-log_ratio.mean())
            else:
                terms.append(math.log(len(positives)) - torch.logsumexp(log_ratio, dim=0))
    return torch.stack(terms).mean() if terms else z.sum() * 0


def region_by_loops(query: Tensor, key: Tensor, valid: Tensor, temperature: float, negatives: str = "image") -> Tensor:
    """Anchors and positives by loops over item, region and points."""
    if negatives == "batch":
        query, key, valid = query.flatten(0, 1)[None], key.flatten(0, 1)[None], valid.flatten()[None]
    terms = []
    for b in range(query.shape[0]):
        regions = [r for r in range(query.shape[1]) if valid[b, r]]
        if len(regions) < 2:
            continue
        for r in regions:
            others = torch.cat([key[b, other] for other in regions if other != r])
            for anchor in query[b, r]:
                mass = torch.logsumexp(others @ anchor / temperature, dim=0)
                terms += [functional.softplus(mass - p @ anchor / temperature) for p in key[b, r]]
    return torch.stack(terms).mean() if terms else query.sum() * 0


def value_and_gradients(loss: Callable[..., Tensor], *sides: Tensor) -> list[Tensor]:
    leaves = [side.detach().clone().requires_grad_() for side in sides]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def assert_near(got: list[Tensor], expected: list[Tensor], tolerance: float = 2e-6) -> None:
    """Largest deviation relative to the largest entry."""
    for a, b in zip(got, expected, strict=True):
        scale = b.double().abs().max().clamp(min=1e-30)
        assert ((a.double() - b.double()).abs().max() / scale).item() <= tolerance


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("temperature", [0.03, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 23, 5), (1, 40, 16)])
def test_a_set_with_itself_equals_the_dense_form(
    shape: tuple[int, int, int], temperature: float, unit_norm: bool, exclude_self: bool
) -> None:
    """Each sum alone, and both, forward and backward."""
    z, labels = unit(*shape), labels_of(*shape[:2])

    def loss(z: Tensor, which: str, backend: str) -> Tensor:
        options = {"exclude_self": exclude_self, "unit_norm": unit_norm, "backend": backend}
        lse_all, lse_neg = masked_lse(z, z, labels, labels, temperature, **options)
        assert lse_neg is not None
        parts = {"all": lse_all.clamp(min=-1e9).sin(), "neg": torch.where(lse_neg > -math.inf, lse_neg.cos(), 0.0)}
        return sum((parts[name].sum() for name in which.split()), z.sum() * 0)

    for which in ("all", "neg", "all neg"):
        expected = value_and_gradients(lambda z, which=which: loss(z, which, "reference"), z.double())
        assert_near(
            value_and_gradients(lambda z, which=which: loss(z, which, "cpu"), z), expected, 3e-5
        )  # lse near 1 / temperature, then cos


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("labeled", [False, True])
def test_gradcheck_of_a_set_with_itself(labeled: bool, unit_norm: bool) -> None:
    z, labels = unit(2, 16, 3, dtype=torch.float64).requires_grad_(), labels_of(2, 16) if labeled else None

    def both(z: Tensor) -> Tensor:
        lse_all, lse_neg = masked_lse(z, z, labels, labels, 0.3, exclude_self=True, unit_norm=unit_norm)
        return lse_all.sin().sum() + (0.0 if lse_neg is None else lse_neg.cos().sum())

    assert torch.autograd.gradcheck(both, z)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [0.005, 0.07, 100.0])
@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 9, 1), (3, 31, 7)])
def test_supcon_equals_the_loops(shape: tuple[int, int, int], temperature: float, variant: str, backend: str) -> None:
    z, labels = unit(*shape), labels_of(*shape[:2], classes=5)
    expected = value_and_gradients(lambda z: supcon_by_loops(z, labels, temperature, variant), z.double())
    got = value_and_gradients(lambda z: supcon(z, labels, temperature, variant=variant, backend=backend), z)
    assert_near(got, expected, 1e-5)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck_of_supcon(variant: str) -> None:
    z, labels = unit(2, 15, 3, dtype=torch.float64).requires_grad_(), labels_of(2, 15)
    assert torch.autograd.gradcheck(lambda z: supcon(z, labels, 0.2, variant=variant), z)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_integers_are_labels(variant: str, backend: str) -> None:
    """Beyond int16 and int32, negative, and such as an int32 would take for one another."""
    z, small = unit(2, 20, 4), labels_of(2, 20, classes=4)
    expected = supcon(z, small, variant=variant, backend=backend)
    for names, dtype in (([70_000, -3, 2**31 - 1, 0], torch.int32), ([0, 2**32, 2**40, -(2**50)], torch.int64)):
        labels = torch.tensor(names, dtype=dtype)[small]
        assert torch.allclose(supcon(z, labels, variant=variant, backend=backend), expected, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_anchors_without_positives_are_keys_only(variant: str, backend: str) -> None:
    z = unit(1, 6, 4)
    labels = torch.tensor([[0, 0, 0, 1, 2, 3]])
    got = value_and_gradients(lambda z: supcon(z, labels, variant=variant, backend=backend), z)
    assert_near(got, value_and_gradients(lambda z: supcon_by_loops(z, labels, 0.07, variant), z.double()), 1e-5)
    assert got[1][0, 4].abs().max() > 0
    alone = value_and_gradients(lambda z: supcon(z, torch.arange(6)[None], variant=variant, backend=backend), z)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in alone)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("negatives", ["image", "batch"])
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("points", [(5, 5), (4, 1), (1, 3)])
def test_region_contrast_equals_the_loops(
    points: tuple[int, int], unit_norm: bool, negatives: str, backend: str
) -> None:
    q, k = unit(3, 4, points[0], 6), unit(3, 4, points[1], 6, seed=1)
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0]]).bool()
    expected = value_and_gradients(lambda q, k: region_by_loops(q, k, valid, 0.1, negatives), q.double(), k.double())
    options = {"negatives": negatives, "unit_norm": unit_norm, "backend": backend}
    assert_near(value_and_gradients(lambda q, k: region_contrast(q, k, valid, 0.1, **options), q, k), expected)


@pytest.mark.usefixtures("tiles")
def test_gradcheck_of_region_contrast() -> None:
    q, k = unit(2, 3, 4, 3, dtype=torch.float64), unit(2, 3, 4, 3, seed=1, dtype=torch.float64)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    sides = q.requires_grad_(), k.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: region_contrast(q, k, valid, 0.2), sides)


@pytest.mark.parametrize("backend", BACKENDS)
def test_regions_without_negatives_are_zero_without_gradient(backend: str) -> None:
    q, k = unit(2, 3, 4, 5), unit(2, 3, 4, 5, seed=1)
    valid = torch.tensor([[False, True, False], [False, False, False]])
    got = value_and_gradients(lambda q, k: region_contrast(q, k, valid, backend=backend), q, k)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in got)
    one = region_contrast(q[:, :1], k[:, :1], backend=backend)
    assert one.item() == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_region_contrast_at_extreme_temperatures(temperature: float, backend: str) -> None:
    q, k = unit(1, 3, 4, 5), unit(1, 3, 4, 5, seed=1)
    every = torch.ones(1, 3, dtype=torch.bool)
    expected = value_and_gradients(lambda q, k: region_by_loops(q, k, every, temperature), q.double(), k.double())
    got = value_and_gradients(lambda q, k: region_contrast(q, k, None, temperature, backend=backend), q, k)
    assert_near(got, expected, 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit_norm", [True, False])
def test_masked_keys_do_not_exist(unit_norm: bool, backend: str) -> None:
    q, k, labels = unit(2, 9, 4), unit(2, 12, 4, seed=1), labels_of(2, 12)
    mask = torch.arange(12) < 7
    options = {"unit_norm": unit_norm, "backend": backend}

    def loss(q: Tensor, k: Tensor, cut: bool) -> Tensor:
        m, key_mask = (7, None) if cut else (12, mask.expand(2, 12))
        lse = masked_lse(q, k[:, :m], labels[:, :9], labels[:, :m], key_mask=key_mask, **options)
        assert lse[1] is not None
        return lse[0].sin().sum() + lse[1].cos().sum()

    expected = value_and_gradients(lambda q, k: loss(q, k, True), q, k)
    assert_near(value_and_gradients(lambda q, k: loss(q, k, False), q, k), expected)
    lse, _ = masked_lse(q, k, key_mask=torch.zeros(2, 12, dtype=torch.bool), **options)
    assert torch.equal(lse, torch.full((2, 9), -math.inf))


LOSSES: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("supcon out", lambda z: supcon(z, labels_of(1, 60))),
    ("supcon in", lambda z: supcon(z, labels_of(1, 60), variant="in")),
    ("regions", lambda z: region_contrast(z.reshape(1, 6, 10, 16), z.roll(1, dims=1).reshape(1, 6, 10, 16))),
]


@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_autocast_strides_and_half_types(name: str, loss: Callable[[Tensor], Tensor]) -> None:
    z = unit(1, 60, 16)
    plain = value_and_gradients(loss, z)
    assert plain[0].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value_and_gradients(loss, z)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    turned = z.mT.contiguous().mT
    assert turned.stride() != z.stride()
    assert_near(value_and_gradients(loss, turned), plain)
    for dtype in (torch.bfloat16, torch.float16):
        value, gradient = value_and_gradients(loss, z.to(dtype))
        assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
        assert_near([value, gradient], value_and_gradients(loss, z.to(dtype).float()), 0.02)


@pytest.mark.parametrize("shape", [(1, 200, 8), (2, 1900, 8)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_bits_do_not_depend_on_the_number_of_threads(variant: str, shape: tuple[int, int, int]) -> None:
    z, labels = unit(*shape), labels_of(*shape[:2], classes=9)
    results = []
    for threads in (1, 3, 3, 4):
        with torch_threads(threads):
            results.append(value_and_gradients(lambda z: supcon(z, labels, variant=variant), z))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_half_of_the_tiles_are_enough() -> None:
    """1,900 rows are 4 blocks: 10 tiles of 16 in each pass, one product of them where both sides differ."""
    from tests.kernels.test_contrast_cost import Watch

    z = unit(1, 1900, 8).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the watch sees one thread only
    try:
        with Watch() as watch:
            supcon(z, labels_of(1, 1900)).backward()
    finally:
        torch.set_num_threads(before)
    assert watch.calls["mm"] == 20
    assert watch.calls["addmm_"] == 16
    assert watch.peak < 1900**2


def test_bad_arguments_are_named() -> None:
    z, y, regions = torch.zeros(1, 4, 2), torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 2, 3, 4)
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, "'out' or 'in', got 'middle'", lambda: supcon(z, y, variant="middle")),
        (ValueError, r"labels must be \(1, 4\)", lambda: supcon(z, y[:, :3])),
        (TypeError, "integers", lambda: supcon(z, y.float())),
        (ValueError, "'image' or 'batch', got 'all'", lambda: region_contrast(regions, regions, negatives="all")),
        (ValueError, r"\(1, 2, 3, 4\) and \(1, 2, 3, 5\)", lambda: region_contrast(regions, torch.zeros(1, 2, 3, 5))),
        (ValueError, "no axis empty", lambda: region_contrast(regions[:, :0], regions[:, :0])),
        (ValueError, "valid must be", lambda: region_contrast(regions, regions, torch.ones(1, 3).bool())),
        (ValueError, "valid must be", lambda: region_contrast(regions, regions, torch.ones(1, 2))),
        (ValueError, "temperature", lambda: region_contrast(regions, regions, None, 0.0)),
        (ValueError, "key_mask must be", lambda: masked_lse(z, z, key_mask=torch.ones(1, 4))),
    ]
    for error, match, call in cases:
        with pytest.raises(error, match=match):
            call()
