# SPDX-License-Identifier: Apache-2.0
"""Tests that need TRITON_INTERPRET=1 from the start of the process; ``test_contrast_triton.py`` runs them.

The interpreter takes about a second for 200 rows, so sizes are small: several tiles, a partial one, a padded C.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_contrast_triton.py", allow_module_level=True)

from fewlabel.kernels.contrast import all_negative, info_nce, masked_lse, region_contrast, supcon
from fewlabel.kernels.contrast.triton_rows import matrix_rows


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1).to(dtype)


def labels_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))


def compare(loss: Callable[..., Tensor], *sides: Tensor, tolerance: float = 5e-6) -> None:
    """Value and gradients of the interpreted kernels beside the dense form in float64."""
    results = []
    for backend, change in (("triton", lambda t: t), ("reference", Tensor.double)):
        leaves = [change(side.detach().clone()).requires_grad_() for side in sides]
        value = loss(*leaves, backend=backend)
        results.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for got, expected, side in zip(results[0][1:], results[1][1:], sides, strict=True):
        assert got.dtype == side.dtype
        scale = expected.abs().max().clamp(min=1e-30)
        assert ((got.double() - expected).abs().max() / scale).item() <= tolerance
    assert results[0][0].item() == pytest.approx(results[1][0].item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("which", ["all", "neg", "all neg"])
@pytest.mark.parametrize("is_self", [True, False])
def test_masked_lse(is_self: bool, which: str, exclude_self: bool, unit_norm: bool) -> None:
    """Each sum alone and both, of one set and of two of different size."""
    z, k = unit(1, 135, 5), unit(1, 70, 5, seed=1)
    labels, key_labels = labels_of(1, 135), labels_of(1, 70, seed=1)

    def loss(q: Tensor, k: Tensor, backend: str) -> Tensor:
        side, names = (q, labels) if is_self else (k, key_labels)
        options = {"exclude_self": exclude_self, "unit_norm": unit_norm, "backend": backend}
        lse_all, lse_neg = masked_lse(q, side, labels, names, 0.3, **options)
        assert lse_neg is not None
        parts = {"all": lse_all.sin(), "neg": lse_neg.cos()}
        return sum((parts[name].sum() for name in which.split()), k.sum() * 0)

    compare(loss, z, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["out", "in"])
def test_supcon(variant: str, dtype: torch.dtype) -> None:
    z, labels = unit(1, 150, 16, dtype=dtype), labels_of(1, 150) * 2**33
    tolerance = 5e-6 if dtype == torch.float32 else 0.01  # the gradient is rounded
    compare(lambda z, backend: supcon(z, labels, variant=variant, backend=backend), z, tolerance=tolerance)


@pytest.mark.parametrize("loss", [info_nce, all_negative])
@pytest.mark.parametrize("symmetric", [True, False])
def test_pairs(loss: Callable[..., Tensor], symmetric: bool) -> None:
    compare(lambda q, k, backend: loss(q, k, 0.2, symmetric=symmetric, backend=backend), unit(2, 60, 7), unit(2, 60, 7))


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_region_contrast_with_padding(negatives: str) -> None:
    valid = torch.tensor([[True, True, False], [True, True, True]])
    compare(
        lambda q, k, backend: region_contrast(q, k, valid, 0.1, negatives=negatives, backend=backend),
        unit(2, 3, 9, 8),
        unit(2, 3, 9, 8, seed=1),
    )


@pytest.mark.parametrize("unit_norm", [True, False])
def test_rows_without_keys(unit_norm: bool) -> None:
    z, labels = unit(1, 20, 4).requires_grad_(), torch.zeros(1, 20, dtype=torch.long)
    _, nothing = masked_lse(z, z, labels, labels, unit_norm=unit_norm, backend="triton")
    assert nothing is not None
    assert torch.equal(nothing, torch.full((1, 20), -math.inf))
    (gradient,) = torch.autograd.grad(nothing, z, torch.full_like(nothing, math.nan))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_extreme_logits_keep_their_own_maximum() -> None:
    """Own label near +2,000, other labels near -2,000."""
    labels = torch.tensor([[0, 0, 1, 1, 0]])
    z = torch.where(labels == 0, 1.0, -1.0).unsqueeze(-1) * 20 + unit(1, 5, 2)
    got = masked_lse(z, z, labels, labels, 0.2, exclude_self=True, backend="triton")
    expected = masked_lse(z.double(), z.double(), labels, labels, 0.2, exclude_self=True, backend="reference")
    for a, b in zip(got, expected, strict=True):
        assert a is not None
        assert b is not None
        assert torch.allclose(a.double(), b, rtol=1e-6)


def test_small_gains_survive_float16() -> None:
    """Upstream gradients of 1e-9 would vanish in float16 weights were they not scaled."""
    z = unit(1, 64, 16, dtype=torch.float32)
    lse, _ = masked_lse(z.half().requires_grad_(), z.half(), backend="triton")
    half = z.half().requires_grad_()
    lse, _ = masked_lse(half, half, exclude_self=True, backend="triton")
    (small,) = torch.autograd.grad(lse, half, torch.full_like(lse, 1e-5), retain_graph=True)
    (large,) = torch.autograd.grad(lse, half, torch.ones_like(lse))
    assert torch.allclose(small.float() * 1e5, large.float(), rtol=0.05, atol=1e-2)


def test_parts_add_up_to_the_number() -> None:
    """Exactly, over the whole range, from any strides; rows are filled up with zeros."""
    numbers = torch.randn(2, 19, 37, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-18, 19)
    parts = matrix_rows(numbers.mT)
    assert parts.shape == (3, 2, 37, 32)
    assert parts.dtype == torch.bfloat16
    assert torch.equal(parts.double().sum(0), functional.pad(numbers.mT.double(), (0, 13)))


def test_repeats_are_bit_equal() -> None:
    z, labels = unit(1, 100, 16).requires_grad_(), labels_of(1, 100)
    grads = [torch.autograd.grad(supcon(z, labels, backend="triton"), z)[0] for _ in range(2)]
    assert torch.equal(*grads)
