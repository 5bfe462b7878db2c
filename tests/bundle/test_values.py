# SPDX-License-Identifier: Apache-2.0
"""Values of the keys that every bundle has."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from fewlabel.bundle.values import check_values
from fewlabel.engines.steps.proxy_task import TASKS
from fewlabel.errors import ConfigError
from fewlabel.pseudolabels.cluster_rules import RULES
from fewlabel.pseudolabels.clustering import Features
from fewlabel.pseudolabels.self_activation import Order
from fewlabel.transforms.instance_rules import SPLITS

GOOD: dict[str, list[Any]] = {
    "batch_size": [1, 4],
    "seed": [0],
    "learning_rate": [1, 1e-4],
    "method_enabled": [True, False, 1, 0],
    "amp": [True],
    "spatial_size": [[96, 128], (8, 8, 8)],
    "label_map": [None, {"1": 1}],
    "resume": ["auto", "never"],
    "spatial_dims": [2, 3],
    "wiring": ["shared", "dual"],
    "pretrain_with": ["contrast", "labels", "both"],
    "recipe_mismatch": ["refuse", "warn"],
    "device": ["cpu", torch.device("cpu"), "meta"],
    "max_epochs": ["$@epochs * 2", "@epochs", "%epochs"],
    "threshold": [0.5],
    "map_sign": ["hematoxylin", None],
    "split": [None, "peaks"],
}
BAD: dict[str, list[Any]] = {
    "batch_size": [0, -1, 2.0, "two", None, True],
    "seed": [-1, "x"],
    "learning_rate": [0, -1.0, "fast", True, float("nan")],
    "method_enabled": ["no", "off", 2, None],
    "amp": ["yes"],
    "spatial_size": [32, "32,48", [32], [32, 0], [1, 2, 3, 4], [32, 48.0]],
    "label_map": [3, [1]],
    "resume": ["maybe", True],
    "spatial_dims": [1, "3", None],
    "wiring": ["both"],
    "pretrain_with": ["label", None],
    "recipe_mismatch": [True],
    "device": ["gpu", "", None, "cuda:4096"],
    "threshold": [0, 1, 2.0],
    "segment_with": ["last", None],
    "proxy_task": ["jigsaw"],
    "map_order": ["relu"],
    "cluster_features": [0],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in GOOD.items() for v in values])
def test_good_values(key: str, value: Any) -> None:
    check_values({key: value, "own_key": "anything"})


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_bad_values(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_values({key: value})
    assert caught.value.message.startswith(f"{key} is {value!r}: give ")


def test_words_are_those_that_the_code_knows() -> None:
    known = {
        "proxy_task": TASKS,
        "map_order": get_args(Order),
        "cluster_rule": tuple(RULES),
        "cluster_features": get_args(Features),
        "split": SPLITS,
    }
    for key, words in known.items():
        for word in words:
            check_values({key: word})
        with pytest.raises(ConfigError) as caught:
            check_values({key: "nothing of these"})
        assert all(word in caught.value.message for word in words)


def test_a_patch_that_the_network_cannot_take_is_refused() -> None:
    patch = {"spatial_dims": 3, "spatial_size": [40, 40, 20], "architecture": "dynunet", "channels": [8, 16, 32]}
    check_values(patch)
    check_values({**patch, "architecture": "basic_unet", "channels": [8] * 5})
    with pytest.raises(ConfigError, match="does not fit a dynunet with 4 channels: give multiples of 8"):
        check_values({**patch, "channels": [8, 16, 32, 64]})
    with pytest.raises(ConfigError, match="has 3 sizes and spatial_dims is 2"):
        check_values({**patch, "spatial_dims": 2})
