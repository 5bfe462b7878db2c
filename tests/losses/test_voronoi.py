# SPDX-License-Identifier: Apache-2.0
"""Cross entropy of labeled pixels and the Voronoi loss: values and gradients written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fewlabel.losses import PixelCrossEntropyLoss, VoronoiLoss


def by_hand(logits: Tensor, label: Tensor, double: bool = False) -> Tensor:
    """Mean of -log p over the labeled pixels, one pixel after the other; label (B, H, W)."""
    terms = []
    for b, y, x in (label != 255).nonzero().tolist():
        z = logits[b, :, y, x]
        if double:
            z = z.exp() / z.exp().sum()
        terms.append(z.exp().sum().log() - z[int(label[b, y, x])])
    return torch.stack(terms).mean() if terms else logits.sum() * 0


def random_case(classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a pseudo mask and Voronoi labels, float64."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, classes, 5, 7, generator=generator, dtype=torch.float64)
    mask = torch.randint(2, (2, 1, 5, 7), generator=generator)
    voronoi = torch.randint(classes + 1, (2, 1, 5, 7), generator=generator)
    return logits.requires_grad_(), mask, torch.where(voronoi == classes, 255, voronoi)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_pixels_by_hand(double: bool, classes: int) -> None:
    logits, _, label = random_case(classes)
    value = PixelCrossEntropyLoss(double_softmax=double)(logits, label.to(torch.uint8))
    expected = by_hand(logits, label[:, 0], double)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, logits), *torch.autograd.grad(expected, logits))


@pytest.mark.parametrize(("weight", "double"), [(1.5, False), (0.5, True), (0.0, False)])
def test_voronoi_by_hand(weight: float, double: bool) -> None:
    logits, mask, voronoi = random_case()
    target = torch.cat([mask, voronoi], dim=1).float()
    value = VoronoiLoss(weight, double_softmax=double)(logits, target)
    background = torch.where(mask == 0, 0, 255)
    expected = by_hand(logits, background[:, 0], double) + weight * by_hand(logits, voronoi[:, 0], double)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, logits), *torch.autograd.grad(expected, logits))


def test_foreground_of_the_mask_by_hand() -> None:
    logits, mask, voronoi = random_case()
    target = torch.cat([mask, voronoi], dim=1).float()
    value = VoronoiLoss(foreground_weight=0.7)(logits, target) - VoronoiLoss()(logits, target)
    believed = torch.where((mask == 1) & (voronoi != 0), 1, 255)
    expected = 0.7 * by_hand(logits, believed[:, 0])
    assert ((mask == 1) & (voronoi == 0)).any()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*torch.autograd.grad(value, logits), *torch.autograd.grad(expected, logits))


def test_pixels_that_say_nothing_get_no_gradient() -> None:
    logits, mask, voronoi = random_case()
    VoronoiLoss()(logits, torch.cat([mask, voronoi], dim=1)).backward()
    silent = (mask[:, 0] == 1) & (voronoi[:, 0] == 255)
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(dim=1) > 0, ~silent) and silent.any()


def test_nothing_labeled_is_zero_with_a_gradient_of_zero() -> None:
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    nothing = torch.full((2, 1, 3, 3), 255)
    value = PixelCrossEntropyLoss()(logits, nothing) + VoronoiLoss()(logits, nothing.expand(2, 2, 3, 3))
    value.backward()
    assert value == 0 and logits.grad is not None and not logits.grad.any()


def test_double_softmax_of_two_classes_keeps_to_its_range_and_damps_the_gradient() -> None:
    low, high = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert (round(low, 4), round(high, 4)) == (0.3133, 1.3133)
    logits = torch.linspace(-50, 50, 101).reshape(1, 1, 1, -1)
    logits = torch.cat([logits, -logits], dim=1).requires_grad_()
    pixels = [
        PixelCrossEntropyLoss(double_softmax=True)(logits[..., i : i + 1], torch.zeros(1, 1, 1, 1)) for i in range(101)
    ]
    values = torch.stack(pixels)
    torch.testing.assert_close(torch.stack([values.min(), values.max()]), torch.tensor([low, high]))
    assert bool((values.diff() <= 0).all())
    (damped,) = torch.autograd.grad(pixels[30], logits)  # certain and wrong
    (plain,) = torch.autograd.grad(PixelCrossEntropyLoss()(logits[..., 30:31], torch.zeros(1, 1, 1, 1)), logits)
    assert damped.abs().max() < 1e-6 < 0.9 < plain.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, mask, voronoi = random_case()
    half, target = logits.detach().to(dtype), torch.cat([mask, voronoi], dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = VoronoiLoss()(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, VoronoiLoss()(half.float(), target))


def test_other_ignored_value_and_volumes() -> None:
    logits, label = torch.randn(1, 2, 2, 3, 4), torch.randint(2, (1, 1, 2, 3, 4))
    label[..., 0] = 2
    value = PixelCrossEntropyLoss(ignore_value=2)(logits, label)
    kept = label[:, 0] != 2
    p = logits.softmax(dim=1).gather(1, label.clamp(max=1))[:, 0]
    torch.testing.assert_close(value, -p[kept].log().mean())


def test_shapes_that_do_not_fit_are_named() -> None:
    logits = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\), expected \(1, 1, 4, 4\)"):
        PixelCrossEntropyLoss()(logits, torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(1, 1, 4, 4\), expected \(1, 2, 4, 4\)"):
        VoronoiLoss()(logits, torch.zeros(1, 1, 4, 4))
