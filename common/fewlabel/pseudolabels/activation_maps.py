# SPDX-License-Identifier: Apache-2.0
"""Where a network looks: activation maps of a whole batch, several layers and several scores after one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewlabel.kernels.backend import full_precision
from fewlabel.pseudolabels.watched import watched_forward

Classes = int | Sequence[int] | Tensor | None
Target = Classes | Callable[[Any], Tensor]
Method = Literal["gradcam", "layercam"]
FLOAT16_SCALE = 1024.0  # a power of two: keeps small gradients from vanishing in float16, and comes off exactly
TOLERANCE = 0.02  # of the largest logit; more than bfloat16 and TF32 need, less than a wrong layer gives


def activation_maps(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    target: Target = None,
    method: Method = "gradcam",
    positive: bool = True,
) -> list[Tensor]:
    r"""Return gradient-weighted activation maps of several layers for scores of the network's output.

    With A the activation of a layer (channels k, n positions p) and y a score of the same image:

    .. math::
        \text{gradcam:}\quad  M_p = \sum_k \Big(\frac1n\sum_q \frac{\partial y}{\partial A_{kq}}\Big) A_{kp}
        \qquad \text{layercam:}\quad M_p = \sum_k \max\Big(0, \frac{\partial y}{\partial A_{kp}}\Big) A_{kp}

    Args:
        network: runs in evaluation mode, so that images do not influence one another; not a compiled one, whose layers
            cannot be watched. It is left as it was (modes, parameters, their gradients, hooks), also after an error.
        images: (B, C, *space), what the network takes.
        layers: names in ``network.named_modules()`` of layers that run once and return (B, K, *space).
        target: what is explained. Of a network that returns (B, K) logits: a class; several classes, a map each; a
            (B,) integer tensor, each image's own class; None, each image's highest. Of any network: a function of its
            output that returns one score (B,) or several (B, S) for each image, or one scalar for the whole batch.
        method: weights of the activations, as above. Layer-CAM is meant for shallow layers too.
        positive: set to 0 what speaks against the score, as published; otherwise maps have both signs.

    Returns:
        A tensor (B, S, *space) for each layer, S the number of scores, in float32 (float64 of such activations).

    Raises:
        ValueError: for an unknown layer or method, a layer that does not run exactly once, returns something else than
            (B, K, *space), or does not reach the score; for logits that are not (B, K) or scores of another shape.

    Note:
        Costs one forward pass and, for each score, one pass back to the shallowest layer; gradients of weights are
        never computed, and what comes before that layer is not kept for it. May be called within ``no_grad``,
        ``inference_mode`` and autocast. While it runs, no other thread may train the network.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391, eq. 1 and 2. Jiang et al., LayerCAM: Exploring
        hierarchical class activation maps for localization, IEEE TIP 2021.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> [maps] = activation_maps(network, torch.rand(2, 1, 8, 8), layers=["1"], target=[0, 3])
        >>> maps.shape
        torch.Size([2, 2, 6, 6])
    """
    if method not in ("gradcam", "layercam"):
        raise ValueError(f"method is {method!r}, expected 'gradcam' or 'layercam'")
    with torch.inference_mode(False), torch.enable_grad():
        output, activations = watched_forward(network, images, layers)
        scores = _scores(output, target, len(images)).sum(dim=0)  # images are independent: each keeps its own gradient
        scale = FLOAT16_SCALE if any(a.dtype == torch.float16 for a in activations) else 1.0
        found: list[list[Tensor]] = [[] for _ in activations]
        for i, score in enumerate(scores):
            gradients = _gradients(score, layers, activations, scale, keep_graph=i + 1 < len(scores))
            for maps, activation, gradient in zip(found, activations, gradients, strict=True):
                maps.append(_weighted(activation.detach(), gradient, method) / scale)
    stacked = [torch.stack(maps, dim=1) for maps in found]
    return [maps.clamp(min=0) for maps in stacked] if positive else stacked


def class_activation_maps(
    network: nn.Module, images: Tensor, layer: str, head: str, target: Classes = None, positive: bool = True
) -> Tensor:
    r"""Return Grad-CAM of a network that ends in global average pooling and a linear head, without any gradient.

    Of logits y = W mean(A) + b, the gradient with respect to A is W / n everywhere, so that Grad-CAM is

    .. math:: M_p = \frac1n \sum_k W_{yk} A_{kp}

    that is, the class activation map, up to the constant n.

    Args:
        network: as in :func:`activation_maps`.
        images: (B, C, *space), what the network takes.
        layer: name of the layer that is pooled.
        head: name of the linear layer, or 1x1 convolution, that turns pooled activations into the logits.
        target: classes, as in :func:`activation_maps`; not a function.
        positive: as in :func:`activation_maps`.

    Returns:
        (B, S, *space): S the number of classes; what ``activation_maps`` returns for ``layer``.

    Raises:
        ValueError: when the logits are not what pooling and head make of the layer, and as in :func:`activation_maps`.

    Note:
        Costs one forward pass and B S K n multiply-adds for K channels. Compares the logits once, on the host.

    References:
        Zhou et al., Learning deep features for discriminative localization, CVPR 2016, arXiv:1512.04150, eq. 1 and 2.
        The identity: Selvaraju et al., arXiv:1610.02391, section 3.1.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    if f"{head}.weight" not in parameters:
        raise ValueError(f"head is {head!r}, expected a layer of the network with a weight")
    with torch.inference_mode(False), torch.no_grad():
        logits, (activation,) = watched_forward(network, images, [layer])
        classes = _classes(logits, target)
        wide = torch.promote_types(activation.dtype, torch.float32)
        flat, weight = activation.flatten(2).to(wide), parameters[f"{head}.weight"].flatten(1).to(wide)
        with full_precision(images.device):
            bias = parameters.get(f"{head}.bias")
            if not _is_head(logits, flat, weight, None if bias is None else bias.to(wide)):
                raise ValueError(f"the logits are not {head}(mean({layer})): use activation_maps")
            maps = (weight[classes] @ flat / flat.shape[2]).unflatten(2, activation.shape[2:])
    return maps.clamp(min=0) if positive else maps


def _classes(logits: Any, target: Classes) -> Tensor:
    """Return the (B, S) classes that are asked for."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network returns {shown}; classes need logits (B, K), else target must be a function")
    if target is None:
        return logits.argmax(dim=1, keepdim=True)
    chosen = torch.as_tensor(target, device=logits.device)
    if not isinstance(target, Tensor):
        return chosen.reshape(1, -1).expand(len(logits), -1)
    if chosen.shape != logits.shape[:1]:
        raise ValueError(f"target is {tuple(chosen.shape)}, expected a class for each of {len(logits)} images")
    return chosen[:, None]


def _scores(output: Any, target: Target, batch: int) -> Tensor:
    """Return (B, S) scores, or (1, 1) of the whole batch."""
    if not callable(target):
        return output.gather(1, _classes(output, target))
    scores = target(output)
    if scores.ndim == 0:
        return scores.reshape(1, 1)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or len(scores) != batch:
        raise ValueError(f"target returns {tuple(scores.shape)}, expected ({batch},), ({batch}, S) or a scalar")
    return scores


def _gradients(
    score: Tensor, layers: Sequence[str], activations: list[Tensor], scale: float, keep_graph: bool
) -> list[Tensor]:
    """Return the gradients of scale x score with respect to activations, in one backward pass."""
    if not score.requires_grad:
        raise ValueError(f"none of the layers {list(layers)} reaches the score with a gradient")
    ones = torch.full_like(score, scale)
    found = torch.autograd.grad(score, activations, ones, retain_graph=keep_graph, allow_unused=True)
    for name, gradient in zip(layers, found, strict=True):
        if gradient is None:
            raise ValueError(f"layer {name!r} does not reach the score with a gradient")
    return list(found)


def _weighted(activation: Tensor, gradient: Tensor, method: Method) -> Tensor:
    """Return the (B, *space) sum of a layer's channels, weighted by the gradient."""
    wide = torch.promote_types(activation.dtype, torch.float32)
    a, g = activation.flatten(2).to(wide), gradient.flatten(2)
    if method == "layercam":
        maps = (g.to(wide).clamp(min=0) * a).sum(dim=1)
    else:
        with full_precision(a.device):
            maps = torch.einsum("bk,bkp->bp", g.mean(dim=2, dtype=wide), a)
    return maps.unflatten(1, activation.shape[2:])


def _is_head(logits: Tensor, flat: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Are the logits what mean and linear head make of the (B, K, n) activations?"""
    if weight.shape != (logits.shape[1], flat.shape[1]):
        return False
    expected = nn.functional.linear(flat.mean(dim=2), weight, bias)
    return bool((logits - expected).abs().max() <= TOLERANCE * logits.abs().max())
