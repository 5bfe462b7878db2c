# SPDX-License-Identifier: Apache-2.0
"""The weights of evaluation and inference: all of them, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from fewlabel.errors import ConfigError
from fewlabel.handlers import ModelLoader


def run(ckpt_dir: Path, network: nn.Module) -> None:
    engine = Engine(lambda engine, batch: None)
    ModelLoader(ckpt_dir, network).attach(engine)
    engine.run([0])


def test_weights_arrive(tmp_path: Path) -> None:
    saved, network = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    run(tmp_path, network)
    assert torch.equal(network.weight, saved.weight) and torch.equal(network.bias, saved.bias)


def test_building_and_attaching_reads_nothing(tmp_path: Path) -> None:
    """MONAI's check of properties builds everything before there is a model."""
    ModelLoader(tmp_path / "nowhere", nn.Identity()).attach(Engine(lambda engine, batch: None))


def test_nothing_trained_yet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"ckpt_dir '{tmp_path}' holds no model\.pt: run training first.*--ckpt_dir"):
        run(tmp_path, nn.Linear(3, 2))


@pytest.mark.parametrize("other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Bilinear(3, 3, 2)])
def test_another_network(tmp_path: Path, other: nn.Module) -> None:
    """Too large, too little, and too much: what is left over on either side betrays another network."""
    torch.save(other.state_dict(), tmp_path / "model.pt")
    network = nn.Linear(3, 2)
    before = network.weight.clone()
    with pytest.raises(ConfigError, match=r"model\.pt' does not fit the network .*give the overlays.*ckpt_dir"):
        run(tmp_path, network)
    assert torch.equal(network.weight, before)


def test_weights_beyond_the_network(tmp_path: Path) -> None:
    deeper = {**nn.Linear(3, 2).state_dict(), "deeper.weight": torch.zeros(2)}
    torch.save(deeper, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"2 of 2 tensors; not deeper\.weight"):
        run(tmp_path, nn.Linear(3, 2))


def test_damaged_file(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"model\.pt' cannot be read as weights only \([^.]*\): it is damaged"):
        run(tmp_path, nn.Linear(3, 2))
