# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, NormalizeIntensityd

from fewlabel.errors import ConfigError
from fewlabel.transforms import IMAGENET_MEAN, StrongAugmentd

STRENGTHS = ["paper", "moderate"]


def item() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"image": torch.rand(3, 48, 64, generator=g), "label": (torch.rand(1, 48, 64, generator=g) > 0.5).float()}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_seed_fixes_everything_whatever_ran_before(strength: str) -> None:
    augment = Compose([StrongAugmentd(label_key="label", strength=strength), NormalizeIntensityd("image")])
    first = augment.set_random_state(seed=7)(item())
    for _ in range(3):
        augment(item())
    torch.manual_seed(99), np.random.seed(99), random.seed(99)  # noqa: NPY002
    again = augment.set_random_state(seed=7)(item())
    other = augment.set_random_state(seed=8)(item())
    for key in ("image", "label"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_global_generators_are_not_advanced(strength: str) -> None:
    augment = StrongAugmentd(label_key="label", strength=strength).set_random_state(seed=0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for _ in range(5):
        augment(item())
    assert torch.equal(states[0], torch.get_rng_state()) and states[2] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("strength", STRENGTHS)
def test_outcome_varies_and_stays_in_range(strength: str) -> None:
    augment = StrongAugmentd(label_key="label", strength=strength).set_random_state(seed=0)
    outs = [augment(item()) for _ in range(12)]
    for out in outs:
        assert out["image"].dtype == torch.float32 and out["image"].shape == (3, 48, 64)
        assert float(out["image"].min()) >= 0 and float(out["image"].max()) <= 1 + 1e-5
        assert set(out["label"].unique().tolist()) <= {0.0, 1.0}
    assert len({float(out["image"].sum()) for out in outs}) == 12


def test_label_follows_only_when_named_and_may_be_absent() -> None:
    data = item()
    assert torch.equal(StrongAugmentd().set_random_state(seed=1)(data)["label"], data["label"])
    augment = StrongAugmentd(label_key="label")
    with_label = augment.set_random_state(seed=1)(data)
    alone = augment.set_random_state(seed=1)({"image": data["image"]})
    assert torch.equal(with_label["image"], alone["image"]) and "label" not in alone


def test_paper_hides_cells_in_the_mean_color() -> None:
    augment = StrongAugmentd().set_random_state(seed=0)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    shares = [float((augment(item())["image"] == mean).all(0).float().mean()) for _ in range(200)]
    assert 0.7 < np.mean(np.array(shares) > 0.2) < 0.9
    assert abs(np.mean([s for s in shares if s > 0.2]) - 0.36) < 0.02


def test_weak_changes_nothing_and_unknown_is_refused() -> None:
    data = item()
    out = StrongAugmentd(label_key="label", strength="weak").set_random_state(seed=0)(data)
    assert torch.equal(out["image"], data["image"]) and torch.equal(out["label"], data["label"])
    with pytest.raises(ConfigError, match="'wild' is unknown: choose one of paper, moderate, weak"):
        StrongAugmentd(strength="wild")


def test_reads_in_one_line_of_a_config() -> None:
    parser = ConfigParser({"augment": {"_target_": "fewlabel.transforms.StrongAugmentd", "label_key": "label"}})
    assert isinstance(parser.get_parsed_content("augment"), StrongAugmentd)
