# SPDX-License-Identifier: Apache-2.0
"""The moving average: against the textbook loop, for weights, statistics and counters."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from torch import nn

from fewlabel.networks import MovingAverage, ema_update, ramped_decay


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


def test_one_operation_for_each_device_and_type() -> None:
    teacher, student = network(0), network(1)
    with (
        mock.patch("torch._foreach_lerp_", wraps=torch._foreach_lerp_) as lerp,
        mock.patch("torch._foreach_copy_", wraps=torch._foreach_copy_) as copied,
    ):
        MovingAverage(teacher, student).update(0.5)
    assert sorted(len(call.args[0]) for call in lerp.call_args_list) == [2, 6]  # float64; float32 with statistics
    assert [len(call.args[0]) for call in copied.call_args_list] == [1]


def test_tensors_that_the_networks_exchange_are_followed() -> None:
    """``to`` makes new buffers, ``load_state_dict(assign=True)`` new parameters."""
    teacher, student = network(0).to(torch.float16), network(1)
    average = MovingAverage(teacher, student)
    teacher.load_state_dict(network(2).to(torch.bfloat16).state_dict(), assign=True)
    student.double()
    teacher.double()
    average.update(0.0)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, student.state_dict()[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_students_and_teachers(dtype: torch.dtype) -> None:
    """A float32 teacher keeps what a step of a thousandth adds; one of half precision is right to its last bit."""
    teacher, half, student = nn.Linear(50, 1), nn.Linear(50, 1).to(dtype), nn.Linear(50, 1).to(dtype)
    before, other = teacher.weight.detach().clone(), half.weight.detach().clone()
    ema_update(teacher, student, 0.999)
    exact = before.lerp(student.weight.float(), 0.001)
    torch.testing.assert_close(teacher.weight.detach(), exact, rtol=0, atol=1e-7)
    ema_update(half, student, 0.7)
    torch.testing.assert_close(half.weight, other.float().lerp(student.weight.float(), 0.3).to(dtype))


def test_other_kinds_of_tensors() -> None:
    """Complex parameters are averaged; flags are copied; a weight that two layers share moves once."""
    teacher, student = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for net, value in ((teacher, 0.0), (student, 1.0)):
        net[1].weight = net[0].weight
        net.register_parameter("wave", nn.Parameter(torch.full((2,), value + 1j * value)))
        net.register_buffer("flag", torch.tensor([bool(value)]))
    before = teacher[0].weight.detach().clone()
    ema_update(teacher, student, 0.75)
    torch.testing.assert_close(teacher[1].weight.detach(), before.lerp(student[0].weight.detach(), 0.25))
    assert torch.equal(teacher.wave.detach(), torch.full((2,), 0.25 + 0.25j))
    assert teacher.flag.item()


def test_layout_of_memory_does_not_matter() -> None:
    teacher, student = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Conv2d(3, 4, 3)
    expected = teacher.weight.detach().lerp(student.weight.detach(), 0.1)
    ema_update(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight.detach(), expected)
    assert teacher.weight.is_contiguous(memory_format=torch.channels_last)


def test_wrappers_are_looked_through() -> None:
    teacher, student = network(0), network(1)
    ema_update(teacher, torch.compile(nn.DataParallel(student)), 0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)
    inside = network(2)
    inside[0] = torch.compile(inside[0])
    ema_update(inside, student, 0.0)
    assert torch.equal(inside[0].weight, student[0].weight)


def test_a_deep_copy_averages_the_copied_networks() -> None:
    holder = nn.ModuleList([network(0), network(1)])
    holder.average = MovingAverage(holder[0], holder[1])
    before, other = holder[0][0].weight.detach().clone(), copy.deepcopy(holder)
    other.average.update(0.0)
    assert torch.equal(other[0][0].weight, holder[1][0].weight)
    assert torch.equal(holder[0][0].weight, before)


def test_while_the_ramp_holds_the_teacher_is_the_mean_of_all_students() -> None:
    teacher, student, seen = nn.Linear(4, 1), nn.Linear(4, 1), []
    for iteration in range(10):
        nn.init.normal_(student.weight)
        seen.append(student.weight.detach().clone())
        ema_update(teacher, student, ramped_decay(iteration, 0.95))
    torch.testing.assert_close(teacher.weight.detach(), torch.stack(seen).mean(dim=0))
    assert ramped_decay(1000, 0.95) == 0.95


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.5"):
        ema_update(network(0), network(1), 1.5)
    with pytest.raises(ValueError, match="in one of them only"):
        ema_update(network(0), nn.Linear(3, 4), 0.5)
    with pytest.raises(ValueError, match=r"weight is \(4, 3\) in the teacher, \(4, 2\)"):
        ema_update(nn.Linear(3, 4), nn.Linear(2, 4), 0.5)
