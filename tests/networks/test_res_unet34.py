# SPDX-License-Identifier: Apache-2.0
"""ResUNet34: torchvision's encoder, the decoder of the specification, any size from 32 on, exports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.networks import ResUNet34, Twin

SLIM: dict[str, Any] = {"width": 16, "blocks": (1, 1, 1, 1)}


def slim(**options: Any) -> ResUNet34:
    torch.manual_seed(0)
    return ResUNet34(**SLIM | options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_default_has_the_parameters_of_the_specification() -> None:
    with torch.device("meta"):
        network = ResUNet34()
        resnet34 = torchvision.models.resnet34()
    assert count(network.encoder) == count(resnet34) - count(resnet34.fc) == 21_284_672
    assert count(network) == 24_399_650
    convolutions = [m for m in network.levels.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        *[(512, 256), (512, 256), (256, 256)],
        *[(256, 128), (256, 128), (128, 128)],
        *[(128, 64), (128, 64), (64, 64)],
        *[(64, 32), (96, 64), (64, 64)],
    ]
    assert (network.head.in_channels, network.head.out_channels) == (64, 2)


def test_encoder_is_torchvisions_and_takes_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = torchvision.models.resnet34().eval()
    torch.save(whole.state_dict(), tmp_path / "resnet34.pt")
    network = ResUNet34(pretrained=tmp_path / "resnet34.pt").eval()
    x = torch.rand(1, 3, 64, 96)
    stem = whole.relu(whole.bn1(whole.conv1(x)))
    first = whole.layer1(whole.maxpool(stem))
    second = whole.layer2(first)
    third = whole.layer3(second)
    expected = [stem, first, second, third, whole.layer4(third)]
    found = network.encoder(x)
    assert [f.shape[1] for f in found] == [64, 64, 128, 256, 512] and found[-1].shape[2:] == (2, 3)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def level(x: Tensor, skip: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """Up(in, out) of the specification, from its weights, in evaluation mode."""
    x = torch.cat([F.conv_transpose2d(x, w[f"{name}.up.weight"], w[f"{name}.up.bias"], stride=2), skip], dim=1)
    for conv, norm in ((0, 2), (4, 6)):
        x = F.relu(F.conv2d(x, w[f"{name}.fuse.{conv}.weight"], w[f"{name}.fuse.{conv}.bias"], padding=1))
        mean, var, scale, shift = (
            w[f"{name}.fuse.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, var, scale, shift)
    return x


def test_decoder_computes_the_specification() -> None:
    network = slim()
    network(torch.rand(4, 3, 64, 64))  # statistics that are not 0 and 1
    network.eval()
    w, x = network.state_dict(), torch.rand(2, 3, 64, 32)
    c1, c2, c3, c4, y = network.encoder(x)
    for i, skip in enumerate((c4, c3, c2, c1)):
        y = level(y, skip, w, f"levels.{i}")
    torch.testing.assert_close(network(x), F.conv_transpose2d(y, w["head.weight"], w["head.bias"], stride=2))


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (33, 63), (45, 61), (256, 320)])
def test_any_size_from_32_on(size: tuple[int, int]) -> None:
    network, image = slim(out_channels=3).eval(), torch.rand(1, 3, *size)
    logits = network(image)
    assert logits.shape == (1, 3, *size)
    mirrored = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32), mode="reflect")
    torch.testing.assert_close(logits, network(mirrored)[..., : size[0], : size[1]])


@pytest.mark.parametrize("options", [{}, {"width": 48, "blocks": (2, 1, 3, 1)}])
def test_gradients_reach_all(options: dict[str, Any]) -> None:
    network = slim(**options)
    network(torch.rand(2, 3, 45, 61)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_dropout_acts_in_training_only_and_a_seed_repeats() -> None:
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(slim()(image), slim()(image))
    network = slim(dropout=0.5)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("options", [{}, {"tied": True}])
def test_exports_agree_at_other_sizes(tmp_path: Path, options: dict[str, Any]) -> None:
    network = Twin(partial(ResUNet34, **SLIM), softmax=True, **options).eval()
    images = [torch.rand(2, 3, 64, 96), torch.rand(1, 3, 45, 61)]
    free = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        network,
        (images[0],),
        tmp_path / "model.onnx",
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": free, "pred": free},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    scripted, traced = torch.jit.script(network), torch.jit.trace(network, images[0])
    for image in images:
        with torch.no_grad():
            expected = network(image)
            torch.testing.assert_close(scripted(image), expected)
            torch.testing.assert_close(traced(image), expected)
        (found,) = session.run(["pred"], {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_imagenet_weights_are_downloaded_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    slim()
    with pytest.raises(ConfigError, match="pretrained weights of encoder 'resnet34' cannot be downloaded"):
        ResUNet34(pretrained=True)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *args, **kwargs: None)
    assert count(ResUNet34(pretrained=True)) == 24_399_650


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, "width is 8: give a multiple of 16"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"blocks": (1, 1, 1)}, r"blocks is \[1, 1, 1\]: give four numbers"),
        ({"pretrained": True}, r"pretrained is true, but with width 16 and blocks \[1, 1, 1, 1\]"),
        ({"pretrained": "nowhere.pt"}, "pretrained 'nowhere.pt' does not exist"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        slim(**options)
    assert "\n" not in error.value.message
