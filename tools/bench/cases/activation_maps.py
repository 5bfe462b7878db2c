# SPDX-License-Identifier: Apache-2.0
"""Activation maps: gradients to the activation, and the closed form, against MONAI's GradCAM.

Columns: what is asked (``one class``, ``20 classes``: of the last layer; ``three layers``: of one score, the blocks of
the first stage, as prior self-activation maps want them), the network, batch and side of the image. The bound counts
the forward pass and the gradient from the score back to the first layer that is asked for. A full backward pass costs
twice the forward pass, so leaving it out at the last layer gains about 3; at the first stage most of the way back
remains, and what is left to gain from one pass are the gradients of weights, about 1.6 by operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial

import timm
import torch
from monai.networks.nets import resnet18
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils.flop_counter import FlopCounterMode

from fewlabel.pseudolabels import activation_maps, class_activation_maps
from fewlabel.pseudolabels.watched import watched_forward
from tools.bench.case import Case, Implementation, Problem, Work

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": partial(resnet18, spatial_dims=2, n_input_channels=3, num_classes=20),
    "res2net50": partial(timm.create_model, "res2net50_26w_4s", num_classes=1),
}
LAST, FIRST = ("layer4",), ("layer1.0", "layer1.1", "layer1.2")
ONE, MANY = (7,), tuple(range(20))  # of these random weights, class 7 has some evidence for it and some against


@functools.cache
def _network(name: str, user: str, device: torch.device) -> nn.Module:
    """A network for each user, because MONAI leaves its hooks."""
    torch.manual_seed(0)
    return NETWORKS[name]().to(device).eval()


@functools.cache
def _monai_maps(name: str, layers: Sequence[str], device: torch.device) -> GradCAM:
    return GradCAM(_network(name, f"monai {layers}", device), layers)


def _gradient(name: str, layers: Sequence[str], classes: Sequence[int], images: Tensor) -> Tensor:
    return torch.cat(activation_maps(_network(name, "ours", images.device), images, layers, classes), dim=1)


def _closed_form(name: str, layers: Sequence[str], classes: Sequence[int], images: Tensor) -> Tensor:
    return class_activation_maps(_network(name, "ours", images.device), images, layers[0], "fc", classes)


def _monai(name: str, layers: Sequence[str], classes: Sequence[int], images: Tensor) -> Tensor:
    """Return MONAI's maps, one call for each class and layer, as its interface has it."""
    cam = _monai_maps(name, layers, images.device)
    with torch.enable_grad():
        maps = [cam.compute_map(images, class_idx=k, layer_idx=i) for i in range(len(layers)) for k in classes]
    return torch.cat(maps, dim=1).detach()


def _monai_once(name: str, layers: Sequence[str], classes: Sequence[int], images: Tensor) -> Tensor:
    """Return maps of all layers from one backward pass of MONAI's wrapper of the network."""
    with torch.enable_grad():
        _, activations, gradients = _monai_maps(name, layers, images.device).nn_module(images, class_idx=classes[0])
    weighted = [a.detach() * g.mean(dim=(2, 3), keepdim=True) for a, g in zip(activations, gradients, strict=True)]
    return torch.cat([relu(w.sum(dim=1, keepdim=True)) for w in weighted], dim=1)


def _gflop(name: str, layer: str, side: int) -> float:
    """Operations for one image: the forward pass, and the gradient back to the layer."""
    with torch.device("meta"):
        network, image = NETWORKS[name](), torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        output, [activation] = watched_forward(network, image, [layer])
        torch.autograd.grad(output[:, 0].sum(), activation)
    return 1e-9 * counter.get_total_flops()


def _make(batch: int, side: int, device: torch.device) -> tuple[Tensor]:
    return (torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device),)


def _problem(asked: str, name: str, layers: Sequence[str], classes: Sequence[int], batch: int, side: int) -> Problem:
    forms = {"gradient": _gradient, "closed form": _closed_form, "monai": _monai, "monai, one pass": _monai_once}
    left_out = {"one class": ["monai, one pass"], "20 classes": ["monai, one pass"], "three layers": ["closed form"]}
    implementations: dict[str, Implementation] = {
        form: partial(call, name, layers, classes) for form, call in forms.items() if form not in left_out[asked]
    }
    return Problem(
        columns={"asked": asked, "network": name, "B": batch, "N": side},
        work=Work(batch * _gflop(name, layers[0], side), 0.0, 12e-9 * batch * side**2),
        make=partial(_make, batch, side),
        implementations=implementations,
        rounds=3 if asked == "20 classes" else 15,
    )


CASE = Case(
    "activation_maps",
    "monai",
    [
        _problem("one class", "resnet18", LAST, ONE, 4, 128),
        _problem("one class", "resnet18", LAST, ONE, 4, 224),
        _problem("20 classes", "resnet18", LAST, MANY, 2, 96),
        _problem("three layers", "res2net50", FIRST, (0,), 1, 128),
        _problem("three layers", "res2net50", FIRST, (0,), 4, 256),
    ],
)
