# SPDX-License-Identifier: Apache-2.0
"""Activation maps against MONAI's, finite differences and the formula; and what they leave behind: nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import ResNet
from monai.visualize import CAM, GradCAM
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewlabel.pseudolabels import activation_maps, class_activation_maps, normalize_maps, resize_maps
from fewlabel.pseudolabels.watched import watched_forward

SIZES = {2: (33, 47), 3: (17, 20, 23)}
LAYERS = ["layer1", "layer2.0", "layer4"]


def network(dims: int = 2, classes: int = 3) -> ResNet:
    """A residual network with running statistics that are not the initial ones, in evaluation mode."""
    torch.manual_seed(dims)
    options = {"spatial_dims": dims, "n_input_channels": 1, "num_classes": classes, "conv1_t_size": 3}
    net = ResNet("basic", [1, 1, 1, 1], [4, 6, 8, 10], **options)
    for _ in range(3):
        net(images(dims))
    return net.eval()


def images(dims: int = 2, batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, *SIZES[dims], generator=torch.Generator().manual_seed(0))


class Tail(nn.Module):
    """A layer whose activation the next one overwrites, and a score that is not linear in it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 3, 3)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.body(x))


def tail() -> tuple[Tail, Tensor]:
    torch.manual_seed(0)
    net, x = Tail().double(), torch.randn(2, 1, 6, 5, dtype=torch.float64)
    net(x)
    return net, x


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradcam_is_that_of_monai(dims: int, layer: str) -> None:
    net, x = network(dims), images(dims)
    [maps] = activation_maps(net, x, [layer], target=[2, 0])
    oracle = GradCAM(network(dims), layer)
    expected = torch.cat([oracle.compute_map(x, class_idx=k).detach() for k in (2, 0)], dim=1)
    assert expected.max() > 0
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * expected.max().item())
    large = resize_maps(maps[:, :1], x.shape[2:])
    shown = GradCAM(network(dims), layer, postprocessing=lambda m: m)(x, class_idx=2).detach()
    torch.testing.assert_close(large, shown, rtol=1e-4, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize("dims", [2, 3])
def test_each_image_has_its_own_class(dims: int) -> None:
    """MONAI mixes the classes of a batch, so the oracle sees one image at a time."""
    net, x = network(dims), images(dims)
    classes = torch.tensor([1, 0, 2])
    oracle = GradCAM(network(dims), "layer3")
    for target, wanted in ((classes, classes), (None, net(x).argmax(dim=1))):
        [maps] = activation_maps(net, x, ["layer3"], target)
        each = [oracle.compute_map(x[i : i + 1], class_idx=int(k)) for i, k in enumerate(wanted)]
        torch.testing.assert_close(maps, torch.cat(each).detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_against_finite_differences(method: str) -> None:
    net, x = tail()
    activation = net.body(x).detach()
    gradient, step = torch.zeros_like(activation), 1e-6
    for i in range(activation[0].numel()):
        shift = torch.zeros_like(activation[0]).flatten()
        shift[i] = step
        up, down = (net.rest(activation + s * shift.view_as(activation[0]))[:, 1] for s in (1, -1))
        gradient.view(2, -1)[:, i] = ((up - down) / (2 * step)).detach()
    weight = gradient.clamp(min=0) if method == "layercam" else gradient.mean(dim=(2, 3), keepdim=True)
    [signed] = activation_maps(net, x, ["body"], 1, method, positive=False)
    torch.testing.assert_close(signed, (weight * activation).sum(dim=1, keepdim=True), rtol=1e-6, atol=1e-8)
    assert signed.dtype == torch.float64
    assert (signed.min() < 0) == (method == "gradcam")  # behind a ReLU, gradients are 0 where activations are negative
    [positive] = activation_maps(net, x, ["body"], 1, method)
    assert torch.equal(positive, signed.clamp(min=0))


def test_several_layers_are_the_single_ones_and_a_batch_its_images() -> None:
    net, x = network(), images()
    together = activation_maps(net, x, LAYERS, target=1)
    for layer, maps in zip(LAYERS, together, strict=True):
        assert torch.equal(activation_maps(net, x, [layer], target=1)[0], maps)
    reverse = activation_maps(net, x, LAYERS[::-1], target=1)[::-1]
    assert all(torch.equal(a, b) for a, b in zip(together, reverse, strict=True))
    for i in range(len(x)):
        for alone, maps in zip(activation_maps(net, x[i : i + 1], LAYERS, target=1), together, strict=True):
            torch.testing.assert_close(alone[0], maps[i], rtol=1e-4, atol=1e-7)
    nested = activation_maps(net, x, ["layer2", "layer2.0", "layer2"], target=1)
    assert all(torch.equal(nested[0], other) for other in nested[1:])


@pytest.mark.parametrize("dims", [2, 3])
def test_closed_form_is_the_gradient_form_and_the_class_activation_map(dims: int) -> None:
    net, x = network(dims), images(dims)
    for target in (None, 2, [0, 1, 2], torch.tensor([2, 2, 0])):
        [expected] = activation_maps(net, x, ["layer4"], target, positive=False)
        maps = class_activation_maps(net, x, "layer4", "fc", target, positive=False)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)
    oracle = CAM(network(dims), "layer4", "fc").compute_map(x)  # with the bias, and not divided by the positions
    winners = net(x).argmax(dim=1)
    positions, bias = maps[0, 0].numel(), net.fc.bias.detach()[winners].view(-1, *[1] * (dims + 1))
    ours = class_activation_maps(net, x, "layer4", "fc", positive=False)
    torch.testing.assert_close(positions * ours + bias, oracle.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(class_activation_maps(net, x, "layer4", "fc"), ours.clamp(min=0))


def test_scores_may_be_functions_of_any_output() -> None:
    net, x = network(), images()
    [expected] = activation_maps(net, x, ["layer2"], target=[0, 2])
    assert torch.equal(activation_maps(net, x, ["layer2"], lambda z: z[:, [0, 2]])[0], expected)
    assert torch.equal(activation_maps(net, x, ["layer2"], lambda z: z[:, 2])[0], expected[:, 1:])
    assert torch.equal(activation_maps(net, x, ["layer2"], lambda z: z[:, 0].sum())[0], expected[:, :1])

    def similarity(z: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(z[:1], z[1:]).sum()

    [maps] = activation_maps(net, x, ["layer2"], similarity, positive=False)
    activation = net.layer2(net.layer1(net.maxpool(net.act(net.bn1(net.conv1(x)))))).detach().requires_grad_()
    z = net.fc(net.avgpool(net.layer4(net.layer3(activation))).flatten(1))
    [gradient] = torch.autograd.grad(similarity(z), activation)
    weighted = gradient.mean(dim=(2, 3), keepdim=True) * activation.detach()
    torch.testing.assert_close(maps, weighted.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-7)


def operations(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_cost_is_a_forward_pass_and_the_way_back_to_the_shallowest_layer() -> None:
    net, x = network(), images()
    forward = operations(lambda: net(x))
    features = net.layer2(net.layer1(net.maxpool(net.act(net.bn1(net.conv1(x)))))).detach()
    tail = operations(lambda: net.fc(net.avgpool(net.layer4(net.layer3(features))).flatten(1)))
    head = 2 * net.fc.weight.numel() * len(x)
    sums = [2 * activation.numel() for activation in watched_forward(net, x, ["layer2", "layer3", "layer4"])[1]]
    two = operations(lambda: activation_maps(net, x, ["layer2", "layer3"], [0, 1]))
    assert two == forward + 2 * (tail + sums[0] + sums[1])
    assert operations(lambda: activation_maps(net, x, ["layer4"], 1)) == forward + head + sums[2]
    assert operations(lambda: class_activation_maps(net, x, "layer4", "fc", 1)) == forward + head + sums[2]


def test_nothing_before_the_first_layer_is_recorded() -> None:
    net, x = network(), images()
    output, [first, second] = watched_forward(net, x, ["layer3", "layer2"])
    assert second.is_leaf
    assert not first.is_leaf
    nodes, leaves = [output.grad_fn], []
    while nodes:
        node = nodes.pop()
        leaves += [node.variable] if hasattr(node, "variable") else []
        nodes += [child for child, _ in node.next_functions if child is not None]
    assert {id(leaf) for leaf in leaves} == {id(second)}


def test_images_may_carry_metadata() -> None:
    net, x = network(), images()
    [maps] = activation_maps(net, MetaTensor(x), ["layer2"], 1)
    assert type(maps) is Tensor
    assert torch.equal(maps, activation_maps(net, x, ["layer2"], 1)[0])


def state(net: nn.Module) -> list[object]:
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    flags = [(id(p), p.requires_grad, p.grad is None) for p in net.parameters()]
    values = [t.clone() for t in net.state_dict().values()]
    return [[m.training for m in net.modules()], hooks, flags, values]


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken")


@pytest.mark.parametrize("outcome", ["fine", "closed form", "fails in the network", "fails in the target"])
def test_nothing_is_left_behind(outcome: str) -> None:
    net, x = network(), images().requires_grad_()
    net.train()
    net.layer2.eval()
    net.layer3.requires_grad_(False)
    if outcome == "fails in the network":
        net.layer4 = Broken()
    before = state(net)
    if outcome == "closed form":
        class_activation_maps(net, x, "layer4", "fc")
    elif outcome == "fine":
        [maps] = activation_maps(net, x, ["layer1"])
        assert not maps.requires_grad
    else:
        with pytest.raises((RuntimeError, ZeroDivisionError)):
            activation_maps(net, x, ["layer1"], lambda z: z / (1 // 0))
    after = state(net)
    assert before[:3] == after[:3]
    assert all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
    assert x.grad is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [["layer1"], LAYERS])
def test_inside_contexts_without_gradients(context: Callable[[], AbstractContextManager], layers: list[str]) -> None:
    net, x = network(), images()
    expected = activation_maps(net, x, layers), class_activation_maps(net, x, "layer4", "fc")
    with context():
        got = activation_maps(net, x * 1, layers), class_activation_maps(net, x * 1, "layer4", "fc")
    assert all(torch.equal(a, b) for a, b in zip(got[0], expected[0], strict=True))
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inside_autocast(dtype: torch.dtype) -> None:
    net, x = network(), images()
    expected = [*activation_maps(net, x, LAYERS, 1), class_activation_maps(net, x, "layer4", "fc", 1)]
    with torch.autocast("cpu", dtype):
        got = [*activation_maps(net, x, LAYERS, 1), class_activation_maps(net, x, "layer4", "fc", 1)]
    for ours, exact in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - exact).abs().mean() < 0.02 * exact.max()


def test_small_gradients_survive_float16() -> None:
    """A mean over many positions: each has a gradient below what float16 can hold."""
    net = nn.Sequential(nn.Identity(), nn.AvgPool2d(128), nn.Flatten(), nn.Linear(1, 1, bias=False)).half()
    net[3].weight.data.fill_(2.0**-13)
    [maps] = activation_maps(net, torch.ones(1, 1, 128, 128, dtype=torch.float16), ["0"], 0)
    torch.testing.assert_close(maps, torch.full_like(maps, 2.0**-27), rtol=1e-2, atol=0)


def test_repeats_are_equal() -> None:
    net, x = network(), images()
    first, second = (activation_maps(net, x, LAYERS, [0, 1]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_layout_of_memory_does_not_matter() -> None:
    net, x = network(), images().expand(-1, 3, -1, -1)[:, 1:2]
    expected = activation_maps(net, x.contiguous(), LAYERS, 1)
    last = x.contiguous(memory_format=torch.channels_last)
    for got in (
        activation_maps(net, x, LAYERS, 1),
        activation_maps(net.to(memory_format=torch.channels_last), last, LAYERS, 1),
    ):
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_normalize_by_map() -> None:
    maps = torch.stack([torch.arange(24.0).view(2, 3, 4) - 5, torch.full((2, 3, 4), -3.0)])[None]
    got = normalize_maps(maps)
    torch.testing.assert_close(got[0, 0], torch.arange(24.0).view(2, 3, 4) / 23)
    assert not got[0, 1].any()


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.fc = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 2)


class Branches(Parts):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x).mean(dim=(2, 3)), self.other(x).mean(dim=(2, 3))


class Twice(Parts):
    def forward(self, x: Tensor) -> Tensor:
        self.other(x)
        with torch.no_grad():
            x = self.conv(self.conv(x))
        return self.fc(x.mean(dim=(2, 3)))


def test_mistakes() -> None:
    net, x = network(), images()
    maps = partial(activation_maps, net, x)
    for layers in (["layer9"], "layer4"):
        with pytest.raises(ValueError, match=r"layers is .*layer.*expected a list of names"):
            maps(layers)
    with pytest.raises(ValueError, match="method is 'score'"):
        maps(["layer1"], method="score")
    with pytest.raises(ValueError, match=r"layer 'fc' returns \(3, 3\), expected a tensor \(B, K, \*space\)"):
        maps(["fc"])
    with pytest.raises(ValueError, match=r"target is \(2,\), expected a class for each of 3 images"):
        maps(["layer1"], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"target returns \(4, 3\), expected \(3,\), \(3, S\) or a scalar"):
        maps(["layer1"], lambda z: torch.cat([z, z[:1]]))
    with pytest.raises(ValueError, match="'conv' runs more than once"):
        activation_maps(Twice(), x, ["conv"])
    with pytest.raises(ValueError, match=r"none of the layers \['other'\] reaches the score"):
        activation_maps(Twice(), x, ["other"])
    with pytest.raises(ValueError, match=r"layer 'other' does not reach the score"):
        activation_maps(Branches(), x, ["conv", "other"], lambda outputs: outputs[0].sum(dim=1))
    with pytest.raises(ValueError, match=r"the network returns \(3, 10, 4, 6\); classes need logits"):
        activation_maps(nn.Sequential(nn.Conv2d(1, 10, 3, stride=8)), x, ["0"])


def test_mistakes_of_the_closed_form() -> None:
    net, x = network(), images()
    with pytest.raises(ValueError, match="head is 'head', expected"):
        class_activation_maps(net, x, "layer4", "head")
    for layer in ("layer3", "layer1"):
        with pytest.raises(ValueError, match=rf"the logits are not fc\(mean\({layer}\)\)"):
            class_activation_maps(net, x, layer, "fc")
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    class_activation_maps(bent, x, "1", "4")
    with pytest.raises(ValueError, match=r"the logits are not 4\(mean\(0\)\)"):
        class_activation_maps(bent, x, "0", "4")
