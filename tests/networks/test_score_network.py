# SPDX-License-Identifier: Apache-2.0
"""The score network: the size of PSM's, one score an image, maps of its shallow layers, weights from files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from fewlabel.errors import ConfigError
from fewlabel.networks import ScoreNetwork
from fewlabel.pseudolabels import self_activation_map

SLIM: dict[str, Any] = {"encoder": "resnet18d", "encoder_options": {"channels": [8, 8, 16, 16], "stem_width": 4}}


def slim(**options: Any) -> ScoreNetwork:
    torch.manual_seed(0)
    return ScoreNetwork(**SLIM | options)


def test_default_is_the_network_of_the_paper() -> None:
    with torch.device("meta"):
        one, released = ScoreNetwork(), ScoreNetwork(outputs=1000)
    assert sum(p.numel() for p in one.parameters()) == 43_159_737
    assert sum(p.numel() for p in released.parameters()) == 43_159_737 + 999 * 2049 == 45_206_688
    assert one.shallow_layers == ["encoder.layer1.0", "encoder.layer1.1", "encoder.layer1.2"]
    assert [len(one.encoder.get_submodule(f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 23, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize(("outputs", "size"), [(1, (64, 64)), (4, (45, 70))])
def test_scores_and_gradients(outputs: int, size: tuple[int, int]) -> None:
    network = slim(outputs=outputs)
    scores = network(torch.rand(3, 3, *size))
    assert scores.shape == (3, outputs) and network.outputs == outputs
    scores.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters()), "a parameter without gradient breaks DDP"


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("resnet18", ["encoder.layer1.0", "encoder.layer1.1"]),
        ("mobilenetv3_small_050", ["encoder.blocks.0.0"]),
        ("convnext_atto", ["encoder.stages.0"]),
    ],
)
def test_shallow_layers_run_at_stride_4_and_give_maps(encoder: str, expected: list[str]) -> None:
    network = ScoreNetwork(encoder).eval()
    assert network.shallow_layers == expected
    shapes = []
    for name in expected:
        network.get_submodule(name).register_forward_hook(lambda _, __, output: shapes.append(output.shape[2:]))
    maps = self_activation_map(network, torch.rand(2, 3, 64, 96), network.shallow_layers)
    assert shapes == [torch.Size([16, 24])] * len(expected)
    assert maps.shape == (2, 1, 64, 96) and maps.std() > 0


def test_scripted_form_agrees() -> None:
    network, image = slim().eval(), torch.rand(1, 3, 40, 61)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_weights_of_the_timm_model_fill_all_but_the_classifier(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("resnet18d", **SLIM["encoder_options"])
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    with caplog.at_level(logging.WARNING):
        network = slim(pretrained=tmp_path / "weights.pt")
    assert "2 tensors not filled (fc.weight, fc.bias" in caplog.text
    for name, value in network.encoder.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, whole.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet18dd"}, "'resnet18dd'.*cannot be built by timm: Unknown model"),
        ({"encoder_options": {"num_classes": 3}}, "num_classes"),
        ({"encoder": "test_vit", "encoder_options": {}}, "encoder 'test_vit' has no features at stride 4"),
        ({"pretrained": "nowhere.pt"}, "pretrained 'nowhere.pt' does not exist"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        slim(**options)
    assert "\n" not in error.value.message
