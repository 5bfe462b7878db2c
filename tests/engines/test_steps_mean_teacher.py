# SPDX-License-Identifier: Apache-2.0
"""Mean Teacher: the teacher follows, never learns, and normalizes as its mode says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.toy_steps import batch, reached, step, train
from torch import Tensor

from fewlabel.engines.steps import MeanTeacherStep
from fewlabel.errors import ConfigError


def test_teacher_starts_as_the_student_and_is_frozen() -> None:
    made = step(MeanTeacherStep)
    student, teacher = made.network.first, made.network.second
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in teacher.state_dict().items())
    assert not any(p.requires_grad for p in teacher.parameters())
    made(batch(1))["loss"].backward()
    assert reached(student) and not reached(teacher)


def test_teacher_is_the_moving_average_of_the_student() -> None:
    made = step(MeanTeacherStep, ema_decay=0.7)
    expected = made.network.second[0].weight.clone()
    for i in range(1, 6):
        train(made, 1, 1, start=i)
        decay = min(0.7, 1 - 1 / (i + 1))
        expected = decay * expected + (1 - decay) * made.network.first[0].weight.detach()
    torch.testing.assert_close(made.network.second[0].weight, expected)


def test_student_sees_clipped_noise_and_the_teacher_none() -> None:
    made, data = step(MeanTeacherStep, noise=0.1), batch(1)
    seen: dict[str, list[Tensor]] = {"first": [], "second": []}
    for name, images in seen.items():
        getattr(made.network, name).register_forward_pre_hook(lambda _, args, images=images: images.append(args[0]))
    made(data)
    labeled, unlabeled = data["labeled"][0]["image"], data["unlabeled"]["image"]
    assert torch.equal(seen["first"][0], labeled) and torch.equal(seen["second"][0], unlabeled)
    noise = seen["first"][1] - unlabeled
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-6) and noise.std().item() == pytest.approx(
        0.1, rel=0.2
    )


@pytest.mark.parametrize(("mode", "statistics"), [("train", "all"), ("train", "labeled"), ("eval", "all")])
def test_statistics_of_the_teacher(mode: str, statistics: str) -> None:
    own_ones = mode == "train" and statistics == "all"
    made = step(MeanTeacherStep, teacher_mode=mode, statistics=statistics).train()
    assert made.network.first.training and made.network.second.training == (mode == "train")
    assert not made.eval().network.second.training
    made.train()
    start = made.network.second[1].running_mean.clone()
    made(batch(1))
    own = made.network.second[1].running_mean.clone()
    assert torch.equal(own, start) != own_ones
    made.after_step(1)
    after, student = made.network.second[1].running_mean, made.network.first[1].running_mean
    torch.testing.assert_close(after, own if own_ones else (start + student) / 2)


def test_consistency_ramps_up_and_can_be_switched_off() -> None:
    made, data = step(MeanTeacherStep, consistency_weight=3.0, ramp_up=10), batch(1)
    for iteration, ramp in ((0, math.exp(-5)), (5, math.exp(-1.25)), (20, 1.0)):
        made.iteration.fill_(iteration)
        terms = made(data)
        torch.testing.assert_close(terms["loss"], terms["supervised"] + 3 * ramp * terms["consistency"])
    off = step(MeanTeacherStep, consistency_weight=0.0)
    assert set(off(batch(1, unlabeled=False))) == {"loss", "supervised"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ema_decay": 1.0}, "ema_decay is 1.0"), ({"teacher_mode": "both"}, "teacher_mode 'both'")],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        step(MeanTeacherStep, **options)
