# SPDX-License-Identifier: Apache-2.0
"""Values, gradients and edge cases of the contrast operators; oracles: scipy, cross entropy, dense float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from tests.kernels._contrast import tiles, unit  # noqa: F401 - a fixture
from tests.kernels._threads import torch_threads
from torch import Tensor
from torch.nn import functional

from fewlabel.kernels.contrast import all_negative, info_nce, masked_lse

BACKENDS = ("cpu", "reference")
SHAPES = [(1, 1, 1, 1), (2, 5, 7, 3), (1, 40, 23, 16), (3, 17, 17, 5), (2, 1, 30, 2)]


def labels_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))


def oracle(q: Tensor, k: Tensor, yq: Tensor, yk: Tensor, temperature: float, exclude_self: bool) -> np.ndarray:
    """(2, B, N) log-sum-exp by scipy, one row at a time, in float64."""
    out = np.full((2, *q.shape[:2]), -np.inf)
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            logits = k[b].double().numpy() @ q[b, i].double().numpy() / temperature
            seen = np.ones(len(logits), bool)
            if exclude_self and i < len(logits):
                seen[i] = False
            for stream, rows in enumerate((seen, seen & (yk[b] != yq[b, i]).numpy())):
                if rows.any():
                    out[stream, b, i] = logsumexp(logits[rows])
    return out


def gradients(loss: Callable[..., Tensor], *sides: Tensor) -> list[Tensor]:
    leaves = [side.detach().clone().requires_grad_() for side in sides]
    return list(torch.autograd.grad(loss(*leaves), leaves))


def assert_near(got: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Largest deviation relative to the largest entry."""
    scale = expected.double().abs().max().clamp(min=1e-30)
    assert ((got.double() - expected.double()).abs().max() / scale).item() <= tolerance


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit_norm", [True, False, None])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.01, 0.07, 10.0])
def test_lse_equals_scipy(
    shape: tuple[int, int, int, int], temperature: float, exclude_self: bool, unit_norm: bool | None, backend: str
) -> None:
    b, n, m, c = shape
    q, k, yq, yk = unit(b, n, c), unit(b, m, c, seed=1), labels_of(b, n), labels_of(b, m, seed=1)
    lse_all, lse_neg = masked_lse(
        q, k, yq, yk, temperature, exclude_self=exclude_self, unit_norm=unit_norm, backend=backend
    )
    assert lse_neg is not None
    assert lse_all.dtype == torch.float32
    expected = oracle(q, k, yq, yk, temperature, exclude_self)
    np.testing.assert_allclose(lse_all.numpy(), expected[0], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(lse_neg.numpy(), expected[1], rtol=1e-5, atol=2e-6)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("labeled", [False, True])
def test_gradcheck(labeled: bool, unit_norm: bool, backend: str) -> None:
    q, k = unit(2, 9, 3, dtype=torch.float64).requires_grad_(), unit(2, 8, 3, seed=1, dtype=torch.float64)
    labels = (labels_of(2, 9), labels_of(2, 8, seed=1)) if labeled else (None, None)

    def both(q: Tensor, k: Tensor) -> Tensor:
        lse_all, lse_neg = masked_lse(q, k, *labels, 0.3, exclude_self=True, unit_norm=unit_norm, backend=backend)
        assert lse_all.dtype == torch.float64
        return lse_all.sin().sum() + (0.0 if lse_neg is None else lse_neg[lse_neg > -math.inf].cos().sum())

    assert torch.autograd.gradcheck(both, (q, k.requires_grad_()))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("loss", [info_nce, all_negative])
def test_gradcheck_of_the_losses(loss: Callable[..., Tensor], unit_norm: bool, backend: str) -> None:
    q, k = unit(2, 9, 3, dtype=torch.float64), unit(2, 9, 3, seed=1, dtype=torch.float64)
    options = {"unit_norm": unit_norm, "backend": backend}
    assert torch.autograd.gradcheck(lambda q, k: loss(q, k, 0.2, **options), (q.requires_grad_(), k.requires_grad_()))

    def separately(q: Tensor, k: Tensor) -> Tensor:
        return (loss(q, k.detach(), 0.2, **options) + loss(k, q.detach(), 0.2, **options)) / 2

    assert_near(loss(q, k, 0.2, symmetric=True, **options), separately(q, k), 1e-12)
    fused = gradients(lambda q, k: loss(q, k, 0.2, symmetric=True, **options), q, k)
    for got, expected in zip(fused, gradients(separately, q, k), strict=True):
        assert_near(got, expected, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_info_nce_equals_cross_entropy(backend: str) -> None:
    q, k = unit(3, 64, 16), unit(3, 64, 16, seed=1)
    target = torch.arange(64).repeat(3)

    def dense(q: Tensor, k: Tensor) -> Tensor:
        return functional.cross_entropy((q @ k.mT / 0.07).flatten(0, 1), target)

    assert_near(info_nce(q, k, backend=backend), dense(q.double(), k.double()))
    expected = gradients(dense, q.double(), k.double())
    for got, wanted in zip(gradients(lambda q, k: info_nce(q, k, backend=backend), q, k), expected, strict=True):
        assert_near(got, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_negative_equals_the_released_form(backend: str) -> None:
    """A zero positive logit beside similarities whose diagonal is -10, cross entropy with target 0."""
    q, k = unit(2, 30, 32), unit(2, 30, 32, seed=1)
    s = (q.double() @ k.double().mT).masked_fill(torch.eye(30, dtype=torch.bool), -10.0)
    logits = torch.cat([torch.zeros(2, 30, 1, dtype=torch.float64), s], dim=2).flatten(0, 1) / 0.07
    expected = functional.cross_entropy(logits, torch.zeros(60, dtype=torch.long))
    assert_near(all_negative(q, k, backend=backend), expected)
    assert all_negative(q, k, include_same_location=True, backend=backend) > all_negative(q, k, backend=backend)


def test_info_nce_notices_permuted_locations() -> None:
    z = unit(1, 50, 8)
    assert info_nce(z, z.roll(1, dims=1)) > info_nce(z, z) + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_of_any_size_are_exact(backend: str) -> None:
    """Own label near +2,000, other labels near -2,000: both sums keep their own maximum."""
    labels = torch.tensor([[0, 0, 1, 1, 0]])
    q = torch.where(labels == 0, 1.0, -1.0).unsqueeze(-1) * 20 + unit(1, 5, 2)
    expected = oracle(q, q, labels, labels, 0.2, True)
    assert expected[0].min() > 1500
    assert expected[1].max() < -1500
    lse = masked_lse(q, q, labels, labels, 0.2, exclude_self=True, backend=backend)
    for stream in range(2):
        np.testing.assert_allclose(lse[stream].numpy(), expected[stream], rtol=1e-6)  # type: ignore[union-attr]


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit_norm", [True, False])
def test_rows_without_keys_are_minus_infinity_without_gradient(backend: str, unit_norm: bool) -> None:
    labels = torch.zeros(1, 20, dtype=torch.long)
    labels[0, 3] = 1
    q, k = unit(1, 20, 4).requires_grad_(), unit(1, 20, 4, seed=1).requires_grad_()
    mute = torch.zeros(1, 20, dtype=torch.long)
    _, lse_neg = masked_lse(q, k, mute, labels, unit_norm=unit_norm, backend=backend)
    _, nothing = masked_lse(q, k, mute, mute, unit_norm=unit_norm, backend=backend)
    assert lse_neg is not None
    assert nothing is not None
    assert torch.allclose(lse_neg, (q * k[:, 3:4]).sum(-1) / 0.07, rtol=1e-5, atol=1e-5)
    assert torch.equal(nothing, torch.full((1, 20), -math.inf))
    for upstream in (5.0, math.nan):  # nan is what 0 * inf further up leaves in such rows
        grads = torch.autograd.grad(nothing, (q, k), torch.full_like(nothing, upstream), retain_graph=True)
        assert all(torch.equal(g, torch.zeros_like(g)) for g in grads)
    alone, _ = masked_lse(q[:, :1], k[:, :1], exclude_self=True, unit_norm=unit_norm, backend=backend)
    assert alone.item() == -math.inf
    assert all_negative(q[:, :1], k[:, :1], unit_norm=unit_norm, backend=backend).item() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_location(backend: str) -> None:
    q, k = unit(2, 1, 4).requires_grad_(), unit(2, 1, 4, seed=1).requires_grad_()
    for symmetric in (False, True):
        for loss, expected in ((info_nce, 0.0), (all_negative, 0.0)):
            value = loss(q, k, symmetric=symmetric, backend=backend)
            grads = torch.autograd.grad(value, (q, k), allow_unused=True)
            assert value.item() == pytest.approx(expected, abs=1e-5)
            assert all(g is None or g.abs().max() < 1e-5 for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_sides(backend: str) -> None:
    lse, _ = masked_lse(torch.zeros(2, 3, 4), torch.zeros(2, 0, 4), backend=backend)
    assert torch.equal(lse, torch.full((2, 3), -math.inf))
    for b, n in ((0, 3), (2, 0)):
        lse, _ = masked_lse(torch.zeros(b, n, 4), torch.zeros(b, 5, 4), backend=backend)
        assert lse.shape == (b, n)
        with pytest.raises(ValueError, match="at least 1"):
            info_nce(torch.zeros(b, n, 4), torch.zeros(b, n, 4), backend=backend)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    q, k = unit(1, 50, 16, dtype=dtype), unit(1, 50, 16, seed=1, dtype=dtype)
    value = info_nce(q, k)
    assert value.dtype == torch.float32
    assert torch.equal(value, info_nce(q.float(), k.float()))
    wide = gradients(info_nce, q.float(), k.float())
    for got, expected in zip(gradients(info_nce, q, k), wide, strict=True):
        assert got.dtype == dtype
        assert_near(got, expected, 0.02)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_autocast_changes_nothing(symmetric: bool, backend: str) -> None:
    q, k = unit(1, 50, 16).requires_grad_(), unit(1, 50, 16, seed=1).requires_grad_()
    value = info_nce(q, k, symmetric=symmetric, backend=backend)
    plain = torch.autograd.grad(value, (q, k))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(q, k, symmetric=symmetric, backend=backend)
        grads = torch.autograd.grad(inside, (q, k))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, value)
    if backend == "cpu":  # the oracle's backward is autograd's, which autocast may reach
        assert all(torch.equal(a, b) for a, b in zip(plain, grads, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_strides_do_not_matter(symmetric: bool, backend: str) -> None:
    q, k = (unit(2, 8, 9, 16, seed=s).movedim(3, 1).contiguous().flatten(2).transpose(1, 2) for s in (0, 1))
    assert q.stride() == (16 * 72, 1, 72)

    def loss(q: Tensor, k: Tensor) -> Tensor:
        return info_nce(q, k, symmetric=symmetric, backend=backend)

    got = gradients(loss, q, k)
    for a, b in zip(got, gradients(loss, q.contiguous(), k.contiguous()), strict=True):
        assert_near(a, b)


def test_inference_mode() -> None:
    q, k = unit(2, 1300, 4), unit(2, 1300, 4, seed=1)
    expected = info_nce(q, k, symmetric=True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            assert_near(info_nce(q, k, symmetric=True), expected)
            assert_near(info_nce(q, k), info_nce(q, k, backend="reference"))
    finally:
        torch.set_num_threads(before)


def test_float64_is_kept_and_types_are_promoted() -> None:
    q = unit(1, 10, 4, dtype=torch.float64)
    assert masked_lse(q, q.float())[0].dtype == torch.float64


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_repeats_are_bit_equal_and_the_graph_serves_twice(symmetric: bool, threads: int) -> None:
    q, k = unit(1, 2400, 8).requires_grad_(), unit(1, 2400, 8, seed=1).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        value = info_nce(q, k, symmetric=symmetric)
        first = torch.autograd.grad(value, (q, k), retain_graph=True)
        second = torch.autograd.grad(value, (q, k))
        again = info_nce(q, k, symmetric=symmetric)
        third = torch.autograd.grad(again, (q, k))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(value, again)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


SELF = {
    "self": lambda z, _: masked_lse(z, z, temperature=0.1, exclude_self=True)[0].mean(),
    "self, not bounded": lambda z, _: masked_lse(z, z, temperature=1e-3)[0].mean(),
}
PAIRS = {
    "info_nce": info_nce,
    "info_nce, symmetric": functools.partial(info_nce, symmetric=True),
    "all_negative, not bounded": functools.partial(all_negative, temperature=1e-3, symmetric=True),
}


@pytest.mark.parametrize("shape", [(1, 37, 8), (2, 571, 64), (1, 1300, 16), (2, 2401, 24)], ids=str)
@pytest.mark.parametrize("name", [*SELF, *PAIRS])
def test_bits_do_not_depend_on_the_number_of_threads(name: str, shape: tuple[int, int, int]) -> None:
    """One tile, one a thread, several, and a last one that is smaller."""
    loss = {**SELF, **PAIRS}[name]
    q, k = unit(*shape), unit(*shape, seed=1)
    results = []
    for threads in (1, 2, 3, 5):
        with torch_threads(threads):
            a, b = q.clone().requires_grad_(), k.clone().requires_grad_()
            value = loss(a, b)
            value.backward()
            results.append([value, a.grad] if name in SELF else [value, a.grad, b.grad])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_arguments_are_named(backend: str) -> None:
    z, y = torch.zeros(1, 4, 2), torch.zeros(1, 4, dtype=torch.long)
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, r"\(1, 4, 2\) and \(1, 4, 3\)", lambda: masked_lse(z, torch.zeros(1, 4, 3), backend=backend)),
        (ValueError, r"\(4, 2\)", lambda: masked_lse(z[0], z, backend=backend)),
        (ValueError, "C > 0", lambda: masked_lse(z[..., :0], z[..., :0], backend=backend)),
        (ValueError, "one shape", lambda: info_nce(z, torch.zeros(1, 5, 2), backend=backend)),
        (ValueError, "temperature", lambda: info_nce(z, z, 0.0, backend=backend)),
        (ValueError, "temperature", lambda: info_nce(z, z, math.nan, backend=backend)),
        (ValueError, "together", lambda: masked_lse(z, z, y, backend=backend)),
        (ValueError, "key_labels must be", lambda: masked_lse(z, z, y, y[:, :3], backend=backend)),
        (TypeError, "integers", lambda: masked_lse(z, z, y.float(), y.float(), backend=backend)),
        (TypeError, "floating", lambda: masked_lse(z.long(), z, backend=backend)),
        (ValueError, "one device", lambda: masked_lse(z, z.to("meta"), backend=backend)),
        (ValueError, "no such backend for contrast on cpu", lambda: info_nce(z, z, backend="triton")),
    ]
    for error, match, call in cases:
        with pytest.raises(error, match=match):
            call()


def test_nan_is_not_hidden() -> None:
    q = unit(1, 10, 4)
    q[0, 3, 1] = math.nan
    for unit_norm in (True, False, None):
        assert info_nce(q, q, unit_norm=unit_norm).isnan()
