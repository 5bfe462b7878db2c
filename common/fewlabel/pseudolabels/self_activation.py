# SPDX-License-Identifier: Apache-2.0
"""The prior self-activation map: what shallow layers of a self-supervised network answer to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fewlabel.pseudolabels.activation_maps import Target, activation_maps

Order = Literal["relu_then_minmax", "minmax_then_mean"]


def self_activation_map(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    target: Target = 0,
    order: Order = "relu_then_minmax",
    toward: Tensor | None = None,
    margin_px: int = 0,
) -> Tensor:
    r"""Return one map for each image from Grad-CAM of several layers, on the images' grid.

    With z = F(I) the score of a network trained without labels and A^b the activation of layer b:

    .. math::
        M^b = \sum_k \Big(\frac1n\sum_q \frac{\partial z}{\partial A^b_{kq}}\Big) A^b_k \qquad
        I_{am} = \text{minmax}\Big(\frac1{|b|}\sum_b \text{resize}\,\text{minmax}\max(0, M^b)\Big)

    Args:
        network: returns (B, 1), the score z; for others see ``target``.
        images: (B, C, *space), scaled as in training.
        layers: names of layers; the paper's choice are the blocks of the first stage.
        target: as in :func:`fewlabel.pseudolabels.activation_maps`, one score for each image.
        order: ``"relu_then_minmax"``, the formula above; ``"minmax_then_mean"``, the released code, whose ReLU comes
            after the first minmax and has no effect, so that the most negative region can end up as 0 or as 1.
        toward: (B, 1, *space) on the images' grid, such as their optical density. The sign of a map of a network
            without labels is arbitrary; a layer's map that correlates negatively with ``toward`` is negated. It may
            then be negative everywhere, and ``"relu_then_minmax"`` leaves nothing of it.
        margin_px: images are continued by so many mirrored pixels on each side, of which the maps are freed again
            before anything is normalized. The zeros with which convolutions pad images answer so strongly that they can
            be all that a map shows.

    Returns:
        (B, 1, *space) in [0, 1], 0 everywhere where a map is constant.

    Raises:
        ValueError: for another order, and as in :func:`fewlabel.pseudolabels.activation_maps`.

    Note:
        Costs what one call of ``activation_maps`` costs, whatever the number of layers.

    References:
        Chen et al., Exploring unsupervised cell recognition with prior self-activation maps, MICCAI 2023,
        arXiv:2308.11144. The paper takes one layer, the released code the mean of several; the code's 1e-7 in the
        denominator of minmax is left out; ``toward`` and ``margin_px`` are ours.
    """
    maps = layer_maps(network, images, layers, target, margin_px)
    oriented = maps if toward is None else [orient_maps(m, toward) for m in maps]
    return fuse_layers(oriented, images.shape[2:], order)


def layer_maps(
    network: nn.Module, images: Tensor, layers: Sequence[str], target: Target = 0, margin_px: int = 0
) -> list[Tensor]:
    """Return what :func:`self_activation_map` starts from: Grad-CAM of each layer, of both signs.

    Args:
        network: as there; so are all other arguments.
        images: (B, C, *space).
        layers: names of layers.
        target: the score.
        margin_px: mirrored pixels on each side; less than the images have.

    Returns:
        For each layer (B, 1, *grid); with a margin on the images' grid.

    Raises:
        ValueError: as in :func:`fewlabel.pseudolabels.activation_maps`.
    """
    maps = activation_maps(network, _mirrored(images, margin_px), layers, target, positive=False)
    return [_inner(m, images.shape[2:], margin_px) for m in maps] if margin_px else maps


def fuse_layers(maps: Sequence[Tensor], size: Sequence[int], order: Order = "relu_then_minmax") -> Tensor:
    """Return what :func:`self_activation_map` ends with: one map of several layers' maps.

    Args:
        maps: for each layer (B, 1, *grid), of both signs.
        size: of the images.
        order: see :func:`self_activation_map`.

    Returns:
        (B, 1, *size) in [0, 1].

    Raises:
        ValueError: for another order.
    """
    if order not in ("relu_then_minmax", "minmax_then_mean"):
        raise ValueError(f"order is {order!r}, expected 'relu_then_minmax' or 'minmax_then_mean'")
    kept = [m.clamp(min=0) if order == "relu_then_minmax" else m for m in maps]
    return normalize_maps(torch.stack([resize_maps(normalize_maps(m), size) for m in kept]).mean(dim=0))


def resize_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps at another size, linearly between the centers of pixels.

    Args:
        maps: (B, S, *space), one to three dimensions of space.
        size: the new ones; ``images.shape[2:]`` for maps of the size of the images.

    Returns:
        (B, S, *size).
    """
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return nn.functional.interpolate(maps, tuple(size), mode=mode, align_corners=False)


def normalize_maps(maps: Tensor) -> Tensor:
    """Stretch each map to [0, 1]: (M - min M) / (max M - min M).

    Args:
        maps: (B, S, *space), floating.

    Returns:
        The same shape; of a constant map zeros.

    Example:
        >>> normalize_maps(torch.tensor([[[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000],
                 [0.0000, 0.0000, 0.0000]]])
    """
    space = tuple(range(2, maps.ndim))
    low, high = maps.amin(space, keepdim=True), maps.amax(space, keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def orient_maps(maps: Tensor, toward: Tensor) -> Tensor:
    """Negate the maps whose correlation with ``toward`` is negative.

    Args:
        maps: (B, S, *space), floating, of both signs.
        toward: (B, 1, *finer), such as optical densities; averaged down to the grid of the maps.

    Returns:
        The shape and type of ``maps``. A constant map stays as it is.

    References:
        Ours; the paper and the released code leave the sign to chance.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 2, 2)
        >>> orient_maps(-ramp, ramp).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    space = tuple(range(2, maps.ndim))
    small = nn.functional.interpolate(toward.to(maps.dtype), maps.shape[2:], mode="area")
    covariance = ((maps - maps.mean(space, keepdim=True)) * small).sum(space, keepdim=True)
    return torch.where(covariance < 0, -maps, maps)


def _mirrored(images: Tensor, margin: int) -> Tensor:
    """Continue images (B, C, *space) on all sides by their mirror image."""
    if margin == 0:
        return images
    return nn.functional.pad(images, (margin,) * (2 * (images.ndim - 2)), mode="reflect")


def _inner(maps: Tensor, space: Sequence[int], margin: int) -> Tensor:
    """Return the part of maps of mirrored images that belongs to the images, on their grid."""
    wide = resize_maps(maps, [n + 2 * margin for n in space])
    return wide[(slice(None), slice(None), *(slice(margin, margin + n) for n in space))]
