# SPDX-License-Identifier: Apache-2.0
"""Networks of MONAI, opened: the parts make the whole, weights fit MONAI's own, exports work, two encoders meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from monai.networks import convert_to_onnx, convert_to_torchscript
from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet
from torch import nn

from fewlabel.errors import ConfigError
from fewlabel.networks import (
    DenseBasicUNet,
    DenseDynUNet,
    DenseFlexibleUNet,
    DenseProjector,
    DenseUNet,
    DualUNet,
    GlobalProjector,
    load_weights,
)

DYN = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3, "filters": [4, 8, 8, 16]}
FLEX = {"backbone": "resnet10", "decoder_channels": (16, 8, 8, 8, 4)}
KINDS: dict[str, tuple[type[DenseUNet], type[nn.Module], dict[str, Any]]] = {
    "basic": (DenseBasicUNet, BasicUNet, {"features": (4, 4, 8, 8, 16, 6)}),
    "dyn": (DenseDynUNet, DynUNet, DYN),
    "deep": (DenseDynUNet, DynUNet, DYN | {"deep_supervision": True}),
    "resnet": (DenseFlexibleUNet, FlexibleUNet, FLEX),
    "efficientnet": (DenseFlexibleUNet, FlexibleUNet, FLEX | {"backbone": "efficientnet-b0"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_dims = pytest.mark.parametrize("dims", [2, 3])


def build(kind: str, dims: int = 2, classes: int = 3, ours: bool = True, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    dense, plain, options = KINDS[kind]
    return (dense if ours else plain)(spatial_dims=dims, in_channels=1, out_channels=classes, **options).eval()


def image(dims: int, size: int = 32) -> torch.Tensor:
    return torch.rand(2, 1, *[size, 64, size][:dims], generator=torch.Generator().manual_seed(0))


@every_kind
@both_dims
def test_the_parts_make_the_whole_and_the_whole_is_monais(kind: str, dims: int) -> None:
    ours, monais, x = build(kind, dims), build(kind, dims, ours=False), image(dims)
    monais.load_state_dict(ours.state_dict())
    features = ours.encode(x)
    dense = ours.decode(features)
    assert [f.shape[1] for f in features] == ours.widths()
    assert [n // m for n, m in zip(x.shape[2:], features[-1].shape[2:], strict=True)] == ours.stride()
    assert dense.shape == (2, ours.dense_width(), *x.shape[2:])
    torch.testing.assert_close(ours.segment(dense), monais(x))
    torch.testing.assert_close(ours.encoder_module()(x), features)


@every_kind
def test_the_parts_hold_every_weight_that_learns_and_no_other(kind: str) -> None:
    network = build(kind).train()
    network.train_only([*network.encoder_parts(), *network.decoder_parts()])
    network.decode(network.encode(image(2))).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
    assert any(p.requires_grad for p in network.parameters())
    network.zero_grad(set_to_none=True)
    network.train_only(network.encoder_parts())
    network.encode(image(2))[-1].sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())


@every_kind
def test_the_trunk_fits_a_network_of_other_classes(kind: str, tmp_path: Path) -> None:
    donor, other = build(kind), build(kind, classes=5, ours=False, seed=1)
    torch.save(donor.trunk_state_dict(), tmp_path / "model.pt")
    left = load_weights(other, tmp_path / "model.pt", key="init_checkpoint")
    assert left and all(
        any(word in name for word in ("final_conv", "output_block", "head", "_fc", "_conv_head", "encoder._bn1"))
        for name in left
    )
    ours = build(kind, classes=5, seed=2)
    load_weights(ours, tmp_path / "model.pt", key="init_checkpoint")
    x = image(2)
    torch.testing.assert_close(ours.decode(ours.encode(x)), donor.decode(donor.encode(x)))


def test_features_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="first of the strides is 2: give 1"):
        DenseDynUNet(spatial_dims=2, in_channels=1, out_channels=2, **DYN | {"strides": [2, 2, 2, 2]})


EXPORTS: list[tuple[str, Callable[[], Any]]] = [
    *((kind, lambda kind=kind: build(kind)) for kind in ("basic", "dyn", "resnet")),
    *((f"dual {kind}", lambda kind=kind: dual(kind)) for kind in ("basic", "dyn", "resnet")),
]


def dual(kind: str, dims: int = 2) -> DualUNet:
    return DualUNet(lambda: build(kind, dims)).eval()


@pytest.mark.parametrize(("name", "make"), EXPORTS, ids=[name for name, _ in EXPORTS])
@pytest.mark.filterwarnings("ignore")
def test_exports(name: str, make: Callable[[], Any]) -> None:
    network, x = make(), image(2)
    scripted = convert_to_torchscript(network)
    torch.testing.assert_close(scripted(x), network(x), rtol=1e-4, atol=1e-4)
    if name == "dual basic":  # half a minute
        onnx = convert_to_onnx(network, inputs=[x], input_names=["image"], output_names=["pred"], use_trace=True)
        session = onnxruntime.InferenceSession(onnx.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"image": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "dims"), [*((kind, 2) for kind in KINDS), ("basic", 3)])
def test_two_encoders_begin_as_the_local_network_and_both_learn(kind: str, dims: int) -> None:
    network, x = dual(kind, dims), image(dims)
    torch.testing.assert_close(network(x), network.local_network(x), rtol=1e-4, atol=1e-4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # in the first step the other encoder has no say yet, but its way in learns
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    assert all(any(p.grad is not None and p.grad.any() for p in e.parameters()) for e in network.children())
    assert all(conv.weight[:, conv.out_channels :].any() for conv in network.fuse)


@pytest.mark.parametrize("kind", ["basic", "dyn", "resnet"])
def test_two_checkpoints_fill_two_encoders(kind: str, tmp_path: Path) -> None:
    donors = [build(kind, seed=seed) for seed in (5, 6)]
    files = [tmp_path / "global.pt", tmp_path / "local.pt"]
    torch.save(donors[0].state_dict(), files[0])
    torch.save(donors[1].trunk_state_dict(), files[1])
    network, x = dual(kind), image(2)
    network.load_pretrained(*files)
    torch.testing.assert_close(network.global_encoder(x), donors[0].encode(x))
    torch.testing.assert_close(network.local_network.encode(x), donors[1].encode(x))
    torch.testing.assert_close(network.local_network.decode(donors[1].encode(x)), donors[1].decode(donors[1].encode(x)))
    with pytest.raises(ConfigError, match=r"global_checkpoint .* does not exist"):
        network.load_pretrained(tmp_path / "none.pt")


def test_a_projector_of_pixels_is_a_projector_of_maps() -> None:
    """1x1 convolutions on the whole map give the same as linear layers on its pixels."""
    projector, features = DenseProjector(6, 8), torch.randn(2, 6, 4, 5)
    first, norm, relu, last = projector.layers
    maps = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), relu, nn.Conv2d(8, 8, 1))
    maps[0].weight.data, maps[3].weight.data = first.weight[..., None, None], last.weight[..., None, None]
    maps[3].bias.data = last.bias
    torch.testing.assert_close(projector(features.movedim(1, -1)).movedim(-1, 1), maps(features))
    torch.testing.assert_close(norm.running_var, maps[1].running_var)
    assert projector(torch.randn(2, 3, 4, 6)).shape == (2, 3, 4, 8)


@pytest.mark.parametrize("norm", [False, True])
def test_a_projector_of_images(norm: bool) -> None:
    projector = GlobalProjector(6, 8, norm=norm)
    assert projector(torch.randn(3, 6, 2, 2, 2)).shape == (3, 8)
    assert any(isinstance(m, nn.BatchNorm1d) for m in projector.modules()) == norm
    features = torch.randn(3, 6, 4, 4)
    torch.testing.assert_close(projector(features), projector(features.flatten(2).flip(2)))
