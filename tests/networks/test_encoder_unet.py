# SPDX-License-Identifier: Apache-2.0
"""The U-shaped network: the paper's numbers, any size, any encoder, weights from files, one sentence per mistake."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.networks import EncoderUNet

SLIM: dict[str, Any] = {"encoder": "resnet18d", "encoder_options": {"channels": [8, 8, 16, 16], "stem_width": 4}}


def slim(**options: Any) -> EncoderUNet:
    torch.manual_seed(0)
    return EncoderUNet(**SLIM | options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_default_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        network = EncoderUNet()
        whole = timm.create_model("res2net101d")
    assert count(whole) == 45_225_920  # 45.23 M, of which layer4 and fc (17.05 M) are not built
    assert count(network.encoder) == 45_225_920 - 17_047_304
    assert count(network.decoder) == 27_402_881
    assert not any("layer4" in name or name.startswith("fc") for name, _ in network.encoder.named_parameters())


def test_default_decoder_has_the_widths_of_the_paper() -> None:
    with torch.device("meta"):
        convolutions = [m for m in EncoderUNet().decoder.modules() if isinstance(m, nn.Conv2d)]
    widths = [(c.in_channels, c.out_channels) for c in convolutions]
    assert widths == [
        *[(1024, 1024), (1024, 512), (1024, 512), (512, 512)],
        *[(512, 512), (512, 256), (512, 256), (256, 256)],
        *[(256, 256), (256, 64), (128, 64), (64, 64)],
        (64, 1),
    ]


def block(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Block(i, m, o) of the paper, from its weights."""
    for conv, norm in (("0", "1"), ("3", "4")):
        x = F.conv2d(x, weights[f"{name}.{conv}.weight"], weights[f"{name}.{conv}.bias"], padding=1)
        mean, var = weights[f"{name}.{norm}.running_mean"], weights[f"{name}.{norm}.running_var"]
        x = F.batch_norm(x, mean, var, weights[f"{name}.{norm}.weight"], weights[f"{name}.{norm}.bias"])
        x = torch.where(x > 0, x, 0.01 * x)
    return x


def test_decoder_computes_the_table_of_the_paper() -> None:
    decoder = slim().eval().decoder
    w = decoder.state_dict()
    x0, x1, x2, x3 = (torch.randn(2, c, 32 // r, 48 // r) for c, r in zip((8, 8, 8, 16), (2, 4, 8, 16), strict=True))

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, size=[2 * s for s in x.shape[2:]], mode="bilinear", align_corners=True)

    y = x3
    for i, skip in enumerate((x2, x1, x0)):
        y = block(up(y), w, f"levels.{i}.narrow")
        y = block(torch.cat([skip, y], dim=1), w, f"levels.{i}.fuse")
    expected = F.conv2d(up(y), w["head.weight"], w["head.bias"])
    torch.testing.assert_close(decoder([x0, x1, x2, x3]), expected)


@pytest.mark.parametrize("size", [(96, 128), (16, 16), (27, 48), (135, 121), (1, 5)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = slim().eval()
    image = torch.randn(1, 3, *size)
    logits = network(image)
    assert logits.shape == (1, 1, *size)
    padded = F.pad(image, (0, -size[1] % 16, 0, -size[0] % 16), mode="replicate")
    torch.testing.assert_close(logits, network(padded)[..., : size[0], : size[1]])


@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "regnetx_002", "mobilenetv3_small_050"])
def test_other_encoders_and_channels(encoder: str) -> None:
    network = EncoderUNet(in_channels=1, out_channels=2, encoder=encoder)
    network(torch.randn(2, 1, 32, 48)).square().mean().backward()
    assert network(torch.randn(2, 1, 32, 48)).shape == (2, 2, 32, 48)
    assert all(p.grad is not None for p in network.parameters()), "a parameter without gradient breaks DDP"


def test_two_builds_start_apart_and_a_seed_repeats() -> None:
    a, b = EncoderUNet(**SLIM), EncoderUNet(**SLIM)
    assert not torch.equal(a.decoder.head.weight, b.decoder.head.weight)
    assert torch.equal(slim().decoder.head.weight, slim().decoder.head.weight)


def test_dropout_acts_in_training_only() -> None:
    image = torch.randn(1, 3, 32, 32)
    network = slim(dropout=0.5)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 0.0
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_scripted_and_traced_forms_agree_at_other_sizes() -> None:
    network = slim().eval()
    image = torch.randn(1, 3, 40, 61)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))
    torch.testing.assert_close(torch.jit.trace(network, torch.randn(1, 3, 32, 32))(image), network(image))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_the_whole_timm_model_fill_the_encoder(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("resnet18d", **SLIM["encoder_options"])
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}}, path)
    else:
        save_file(whole.state_dict(), path)
    with caplog.at_level(logging.WARNING):
        network = slim(pretrained=path)
    for name, value in network.encoder.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name])
    assert "0 tensors not filled" in caplog.text and "layer4" in caplog.text


def test_another_number_of_channels_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "weights.pt"
    torch.save(slim().encoder.state_dict(), path)
    with caplog.at_level(logging.WARNING):
        slim(in_channels=1, pretrained=str(path))
    assert "1 tensors not filled (conv1.0.weight" in caplog.text


def test_no_network_access_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    EncoderUNet(encoder="resnet18d")
    with pytest.raises(ConfigError, match="pretrained weights of encoder 'resnet18d' cannot be downloaded"):
        EncoderUNet(encoder="resnet18d", pretrained=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet18dd"}, "'resnet18dd'.*cannot be built by timm: Unknown model"),
        ({"encoder_options": {"chanels": [1]}}, "chanels"),
        ({"encoder": "convnext_atto"}, r"strides \(4, 8, 16, 32\), not \(2, 4, 8, 16\)"),
        ({"encoder": "vit_tiny_patch16_224", "encoder_options": {}}, "vit_tiny_patch16_224"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"pretrained": "nowhere.pt"}, "pretrained 'nowhere.pt' does not exist"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], message: str) -> None:
    if options.get("encoder", "").startswith(("convnext", "resnet18dd")):
        options = {"encoder_options": {}} | options
    with pytest.raises(ConfigError, match=message) as error:
        slim(**options)
    assert "\n" not in error.value.message


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ConfigError, match="does not fit the network"):
        slim(pretrained=path)
    torch.save([1, 2], path)
    with pytest.raises(ConfigError, match="holds a list"):
        slim(pretrained=path)
