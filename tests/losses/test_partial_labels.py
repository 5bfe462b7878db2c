# SPDX-License-Identifier: Apache-2.0
"""Loss of partial labels: MONAI's with all classes, sums of probabilities written out without."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor

from fewlabel.losses import PartialLabelLoss


def inputs(space: tuple[int, ...] = (5, 4, 3), dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, *space, generator=generator, dtype=dtype) * 3
    return logits.requires_grad_(), torch.randint(0, 5, (3, 1, *space), generator=generator)


OPTIONS = list(itertools.product([True, False], [True, False]))
PRESENT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])


def slow(logits: Tensor, label: Tensor, present: Tensor, include_background: bool, batch: bool) -> Tensor:
    """The sums of the docstring, item by item and class by class."""
    p, cross, terms = logits.softmax(1), [], {}
    for b in range(len(p)):
        absent = [c for c in range(1, p.shape[1]) if not present[b, c]]
        q0 = p[b, 0] + sum(p[b, c] for c in absent)
        truth = label[b, 0].clone()
        for c in absent:
            truth[truth == c] = 0
        for place in itertools.product(*map(range, truth.shape)):
            t = int(truth[place])
            cross.append(-(q0 if t == 0 else p[b, t])[place].log())
        for c in range(0 if include_background else 1, p.shape[1]):
            if c not in absent:
                q, y = q0 if c == 0 else p[b, c], (truth == c).double()
                terms.setdefault(c, []).append(((q * y).sum(), q.sum() + y.sum()))
    if batch:
        terms = {c: [tuple(map(sum, zip(*pairs, strict=True)))] for c, pairs in terms.items()}
    dice = [1 - (2 * i + 1e-5) / (s + 1e-5) for pairs in terms.values() for i, s in pairs]
    return torch.stack(cross).mean() + torch.stack(dice).mean()


@pytest.mark.parametrize("space", [(6, 7), (5, 4, 3)])
@pytest.mark.parametrize(("include_background", "batch"), OPTIONS)
def test_with_every_class_it_is_that_of_monai(space: tuple[int, ...], include_background: bool, batch: bool) -> None:
    logits, label = inputs(space)
    theirs = DiceCELoss(to_onehot_y=True, softmax=True, include_background=include_background, batch=batch)
    expected = theirs(logits, label)
    expected_gradient = torch.autograd.grad(expected, logits)[0]
    ours = PartialLabelLoss(include_background=include_background, batch=batch)
    for present in (None, torch.ones(3, 5), torch.ones(3, 5, dtype=torch.bool)):
        value = ours(logits, label, present)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], expected_gradient)


@pytest.mark.parametrize(("include_background", "batch"), OPTIONS)
def test_with_some_classes_it_is_the_sums_written_out(include_background: bool, batch: bool) -> None:
    logits, label = inputs()
    expected = slow(logits, label, PRESENT, include_background, batch)
    value = PartialLabelLoss(include_background=include_background, batch=batch)(logits, label, PRESENT)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in (value, expected)))


def test_balance_weighs_pixels_by_the_number_of_their_class() -> None:
    logits, label = inputs()
    label[label == 3] = 1  # a class without a pixel weighs nothing
    count = label.flatten().bincount(minlength=5).double()
    cross = -logits.log_softmax(1).gather(1, label)
    for power in (0.5, 1.0):
        weight = count[label] ** -power
        value = PartialLabelLoss("ce", class_balance=power)(logits, label)
        torch.testing.assert_close(value, (weight * cross).sum() / weight.sum())
    each = torch.stack([cross[label == c].mean() for c in (0, 1, 2, 4)])
    torch.testing.assert_close(value, each.mean())


def test_balance_counts_what_is_not_annotated_as_background() -> None:
    logits, label = inputs()
    cleaned = torch.where(PRESENT.gather(1, label.flatten(1)).view_as(label) > 0, label, 0)
    loss = PartialLabelLoss("ce", class_balance=0.5)
    value = loss(logits, label, PRESENT)
    torch.testing.assert_close(value, loss(logits, cleaned, PRESENT))
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_the_parts_add_up() -> None:
    logits, label = inputs()
    both, dice, cross = (PartialLabelLoss(base)(logits, label, PRESENT) for base in ("dice_ce", "dice", "ce"))
    torch.testing.assert_close(both, dice + cross)


def test_moving_probability_among_background_and_unannotated_classes_costs_nothing() -> None:
    logits, label = inputs()
    label[0], present = 0, torch.tensor([[1, 0, 0, 1, 1]])
    moved = logits[:1].detach().log_softmax(1)
    moved[:, :3] = moved[:, :3].flip(1)
    loss = PartialLabelLoss()
    torch.testing.assert_close(loss(logits[:1], label[:1], present), loss(moved, label[:1], present))
    assert not torch.allclose(loss(logits[:1], label[:1]), loss(moved, label[:1]))


def test_the_background_is_always_told_and_unannotated_values_are_background() -> None:
    logits, label = inputs()
    loss = PartialLabelLoss()
    without = PRESENT.clone()
    without[:, 0] = 0
    torch.testing.assert_close(loss(logits, label, without), loss(logits, label, PRESENT))
    cleaned = torch.where(PRESENT.gather(1, label.flatten(1)).view_as(label) > 0, label, 0)
    torch.testing.assert_close(loss(logits, cleaned, PRESENT), loss(logits, label, PRESENT))


def test_nothing_but_background_annotated_says_nothing_and_is_finite() -> None:
    logits, label = inputs(dtype=torch.float32)
    only = torch.zeros(3, 5)
    for include in (True, False):
        value = PartialLabelLoss(include_background=include)(logits * 50, label, only)
        gradient = torch.autograd.grad(value, logits)[0]
        assert value.abs() < 1e-5 and gradient.isfinite().all() and gradient.abs().max() < 1e-5


def test_large_logits_in_half_precision_are_finite() -> None:
    logits, label = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = PartialLabelLoss()((logits * 40).bfloat16(), label.float(), PRESENT)
    assert value.dtype == torch.float32 and torch.autograd.grad(value, logits)[0].isfinite().all()


def test_shapes_and_names() -> None:
    logits, label = inputs()
    with pytest.raises(ValueError, match="expected one of dice_ce, dice, ce as base, got 'focal'"):
        PartialLabelLoss("focal")
    with pytest.raises(ValueError, match=r"present has shape \(3, 4\), expected \(3, 5\)"):
        PartialLabelLoss()(logits, label, PRESENT[:, :4])
    with pytest.raises(ValueError, match="label has shape"):
        PartialLabelLoss()(logits, label[:, 0], PRESENT)
