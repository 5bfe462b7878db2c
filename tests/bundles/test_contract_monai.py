# SPDX-License-Identifier: Apache-2.0
"""Every bundle, trained for two steps in its light profile, passes MONAI's own checks; a broken one is told so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bundles import contract_monai as rules
from tests.bundles.test_contract import BUNDLES, edit
from tests.guards._tree import refuse
from torch import Tensor, nn


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda bundle: bundle.name)
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small copy of a bundle with the weights of its own training; read only."""
    copy = rules.small_copy(request.param, tmp_path_factory.mktemp("released"))
    refuse(list(rules.runs(copy)), request.param.name)
    return copy


@pytest.mark.parametrize("rule", rules.RELEASE_RULES, ids=lambda rule: rule.__name__)
def test_bundle_passes(released: Path, rule: Any) -> None:
    before = sorted(released.rglob("*"))
    refuse(list(rule(released)), released.name)
    assert sorted(released.rglob("*")) == before, "a check writes into the bundle"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_network_of_the_default_profile(bundle: Path) -> None:
    refuse(list(rules.network(bundle)), bundle.name)


class Net(nn.Module):
    """A network of one weight that breaks one thing."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, 1, H, W) for (B, 3, H, W)."""
        if torch.jit.is_scripting():
            if self.fault == "scripted":
                image = image + 1
        elif torch.compiler.is_exporting() and self.fault == "exported":
            image = image + 1
        if self.fault == "cropped":
            image = image[:, :, 1:]
        pred = (image * self.weight).sum(1, keepdim=True)
        if self.fault == "double":
            pred = pred.double()
        return torch.cat([pred, pred], 1) if self.fault == "channels" else pred


class Unscriptable(Net):
    """One that TorchScript cannot hold."""

    def forward(self, image: Tensor) -> Tensor:
        """As above."""
        return super().forward(image)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bundle with a network of one weight, which passes."""
    target = rules.small_copy(BUNDLES[0], tmp_path)
    (target / "models").mkdir()
    torch.save(Net().state_dict(), target / "models" / "model.pt")
    return equip(target, "")


def equip(bundle: Path, fault: str, kind: str = "Net") -> Path:
    for name in ("train", "inference"):
        edit(bundle, name, "network_def", {"_target_": f"{__name__}.{kind}", "fault": fault})
    return bundle


def test_network_of_one_weight_passes(copy: Path) -> None:
    assert [text for rule in rules.RELEASE_RULES for text in rule(copy)] == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("scripted", "ckpt_export: is 1.5 away from the network for (2, 3, 64, 32)"),
        ("exported", "onnx_export: is 1.5 away from the network for (2, 3, 64, 32)"),
        ("cropped", "the network gives (2, 1, 63, 32) for (2, 3, 64, 32); by metadata.json (2, 1, 64, 32)"),
    ],
)
def test_export_that_computes_something_else_is_found(copy: Path, fault: str, message: str) -> None:
    assert message in list(rules.exports(equip(copy, fault)))


def test_network_that_cannot_be_exported_is_found(copy: Path) -> None:
    (found,) = rules.exports(equip(copy, "", "Unscriptable"))
    assert found.startswith("ckpt_export: ")


@pytest.mark.parametrize(("fault", "message"), [("channels", "channel number `2`"), ("double", "torch.float64")])
def test_network_that_gives_something_else_is_found(copy: Path, fault: str, message: str) -> None:
    found = list(rules.network(equip(copy, fault)))
    assert len(found) == 2 and all(message in text for text in found)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("authors", None, "'authors' is a required property"),
        ("references", "one", "'one' is not of type 'array'"),
        ("network_data_format::inputs::image::num_channels", "3", "'3' is not of type 'integer'"),
        ("network_data_format::outputs", None, "'outputs' is a required property"),
        ("encoder_data_format", {}, "'inputs' is a required property"),
        ("schema", "https://example.org/own.json", "is none that can be checked against"),
    ],
)
def test_wrong_metadata_is_found(copy: Path, path: str, value: Any, message: str) -> None:
    edit(copy, "metadata", path, value)
    (found,) = rules.schema(copy)
    assert message in found


def test_load_that_works_in_the_own_folder_only_is_found(copy: Path) -> None:
    edit(copy, "train", "initialize", ["$fewlabel.bundle.start()", "$open('configs/train.json').close()"])
    edit(copy, "inference", "initialize", ["$fewlabel.bundle.start()", "$open('note.txt', 'w').close()"])
    found = " ".join(rules.loading(copy))
    assert "load of train.json: FileNotFoundError" in found and "load writes note.txt" in found


def test_load_that_leaves_random_weights_is_found(copy: Path) -> None:
    """Whoever drops the bundle's own check gets MONAI's silence."""
    for name in ("train", "inference"):
        edit(copy, name, "initialize", ["$1"])
    assert [text.partition(" takes ")[2][:26] for text in rules.misfit(copy)] == ["weights of another network"] * 2
    torch.save({"bias": torch.zeros(1)}, copy / "models" / "model.pt")
    assert "load of train.json leaves 1 tensors as they were: weight" in list(rules.loading(copy))


def test_run_that_fails_or_leaves_nothing_is_found(copy: Path, tmp_path: Path) -> None:
    edit(copy, "train", "training", ["$print('trained')"])
    shutil.rmtree(copy / "models")
    found = list(rules.runs(copy))
    assert found[0] == "training leaves no models/model.pt" and "evaluating: ConfigError" in found[1]
