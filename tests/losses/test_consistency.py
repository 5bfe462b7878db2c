# SPDX-License-Identifier: Apache-2.0
"""Consistency with a teacher, cross pseudo labels, ramp-up."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from fewlabel.losses import CrossPseudoLoss, ProbabilityMSELoss, sigmoid_ramp_up


def test_mse_is_half_that_of_the_two_class_softmax() -> None:
    """The published loss sums over classes and divides by their number: of two, both err alike."""
    s, t = torch.randn(2, 3, 1, 5, 7)
    two = [torch.cat([z, torch.zeros_like(z)], dim=1).softmax(dim=1) for z in (s, t)]
    torch.testing.assert_close(ProbabilityMSELoss()(s, t), F.mse_loss(*two))


def test_mse_teaches_the_student_only() -> None:
    s, t = torch.randn(2, 1, 1, 4, 4, requires_grad=True)
    gradients = torch.autograd.grad(ProbabilityMSELoss()(s, t), (s, t), allow_unused=True)
    assert gradients[0].abs().sum() > 0 and gradients[1] is None


def test_cross_pseudo_labels_are_hard_and_mutual() -> None:
    a, b = torch.randn(2, 2, 1, 6, 6, requires_grad=True).unbind()
    loss = CrossPseudoLoss(torch.nn.BCEWithLogitsLoss())(a, b)
    expected = [F.binary_cross_entropy(torch.sigmoid(x), (torch.sigmoid(y) > 0.5).float()) for x, y in ((a, b), (b, a))]
    torch.testing.assert_close(loss, expected[0] + expected[1])
    for x, y in ((a, b), (b, a)):
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        torch.testing.assert_close(gradient, (torch.sigmoid(x) - (y > 0).float()) / x.numel())


@pytest.mark.parametrize(("iteration", "length", "expected"), [(0, 10, -5.0), (5, 10, -1.25), (10, 10, 0), (99, 10, 0)])
def test_ramp_up(iteration: int, length: int, expected: float) -> None:
    assert sigmoid_ramp_up(torch.tensor(iteration), length).item() == pytest.approx(math.exp(expected))
    assert sigmoid_ramp_up(torch.tensor(iteration), 0) == 1
