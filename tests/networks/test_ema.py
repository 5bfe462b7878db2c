# SPDX-License-Identifier: Apache-2.0
"""The moving average: against the textbook loop, for weights, statistics and counters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabel.networks import ema_update


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1).double())
    net[:2](torch.randn(8, 3) + seed)
    return net


@pytest.mark.parametrize("buffers", [True, False])
def test_against_the_loop(buffers: bool) -> None:
    teacher, student = network(0), network(1)
    student[1].num_batches_tracked += 6
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    theirs = {k: v.clone() for k, v in student.state_dict().items()}
    ema_update(teacher, student, 0.9, buffers=buffers)
    names = dict(teacher.named_buffers()).keys()
    for name, value in teacher.state_dict().items():
        if name in names and not buffers:
            assert torch.equal(value, before[name])
        elif name.endswith("num_batches_tracked"):
            assert value == 7
        else:
            torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * theirs[name])
        assert torch.equal(student.state_dict()[name], theirs[name])


def test_ends_of_the_range() -> None:
    teacher, student = network(0), network(1)
    before = teacher[0].weight.clone()
    ema_update(teacher, student, 1.0)
    assert torch.equal(teacher[0].weight, before)
    ema_update(teacher, student, 0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)


def test_frozen_teachers_and_training_students_are_fine() -> None:
    teacher, student = network(0).requires_grad_(False), network(1)
    ema_update(teacher, student, 0.5)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.grad is None for p in student.parameters())


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.5"):
        ema_update(network(0), network(1), 1.5)
    with pytest.raises(ValueError, match="in one of them only"):
        ema_update(network(0), nn.Linear(3, 4), 0.5)
    with pytest.raises(ValueError, match=r"weight is \(4, 3\) in the teacher, \(4, 2\)"):
        ema_update(nn.Linear(3, 4), nn.Linear(2, 4), 0.5)
