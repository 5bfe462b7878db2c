# SPDX-License-Identifier: Apache-2.0
"""Pre-trained weights travel with the recipe of their images and go where they belong."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from fewlabel.errors import ConfigError
from fewlabel.handlers import PretrainedLoader, PretrainedWriter
from fewlabel.handlers.pretrained import read_recipe, recipe_problem
from fewlabel.networks import DenseUNet, Twin, dense_unet

RECIPE = {"spacing_mm": [2, 2, 2.0], "orientation": "RAS"}


def build(classes: int = 2, **keys: Any) -> Any:
    return dense_unet(classes, spatial_dims=2, channels=(8, 8, 8), **keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    engine = Engine(lambda engine, batch: None)
    PretrainedWriter(tmp_path / "pretrained.pt", build(), RECIPE).attach(engine)
    engine.run([0])
    return tmp_path / "pretrained.pt"


def weights(file: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(file, weights_only=True)["state_dict"])


def test_all_but_the_head_is_loaded_without_a_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, calls = build(classes=5), []
    head = network.output_block.conv.conv.weight.clone()
    with caplog.at_level(logging.INFO):
        PretrainedLoader(network, file, RECIPE, then=lambda: calls.append(1)).load()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights(file).items())
    assert torch.equal(network.output_block.conv.conv.weight, head) and calls == [1]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_tied_twin_takes_a_network_or_a_twin(file: Path, tmp_path: Path) -> None:
    twin = Twin(partial(build), tied=True)
    PretrainedLoader(twin, file, RECIPE).load()
    name, value = next(iter(weights(file).items()))
    assert torch.equal(twin.first.state_dict()[name], value)
    torch.save(twin.state_dict(), tmp_path / "model.pt")
    other = Twin(partial(build), tied=True)
    PretrainedLoader(other, tmp_path / "model.pt", RECIPE).load()
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), other.parameters(), strict=True))


def test_two_encoders_take_a_file_each(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {name: value + 1 for name, value in weights(file).items()}}, other)
    dual = build(dual=True)
    PretrainedLoader(dual, file, RECIPE, global_file=other).load()
    local = dual.local_network
    assert isinstance(local, DenseUNet)
    theirs = zip(dual.global_encoder.parameters(), local.encoder_module().parameters(), strict=True)
    assert all(torch.equal(a, b + 1) for a, b in theirs)
    with pytest.raises(ConfigError, match="wiring dual needs a finished encoder"):
        PretrainedLoader(dual, file, RECIPE).load()


def test_another_recipe_is_refused_or_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = {"spacing_mm": [1.0, 1.0, 1.0], "orientation": "RAS"}
    message = r"spacing_mm \[2, 2, 2.0\] \(here \[1.0, 1.0, 1.0\]\): give --spacing_mm '\[2, 2, 2.0\]'"
    with pytest.raises(ConfigError, match=message):
        PretrainedLoader(build(), file, ours).load()
    PretrainedLoader(build(), file, ours, mismatch="warn").load()
    assert "learned from images of spacing_mm" in caplog.text
    with pytest.raises(ConfigError, match="neither refuse nor warn"):
        PretrainedLoader(build(), file, ours, mismatch="ignore")


def test_recipes_are_compared_by_value_and_only_where_there_is_one(file: Path, tmp_path: Path) -> None:
    assert recipe_problem(file, {"spacing_mm": (2.0, 2.0, 2), "window": [0, 1]}) == ""
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    assert read_recipe(tmp_path / "plain.pt") == {} == read_recipe(tmp_path / "missing.pt")


def test_nothing_is_loaded_from_no_file() -> None:
    network = build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    PretrainedLoader(network, "", RECIPE).load()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
