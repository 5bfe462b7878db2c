# SPDX-License-Identifier: Apache-2.0
"""Networks for dense pre-training, by one word of a config, in two and in three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fewlabel.errors import ConfigError
from fewlabel.networks.dense import DenseBasicUNet, DenseDynUNet, DenseFlexibleUNet, DenseUNet
from fewlabel.networks.dual import DualUNet

GROUPS = 8
_NORM = ("GROUP", {"num_groups": GROUPS})


def dense_unet(
    out_channels: int,
    architecture: str = "dynunet",
    spatial_dims: int = 3,
    in_channels: int = 1,
    channels: Sequence[int] = (32, 64, 128, 256, 320),
    options: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
    dual: bool = False,
) -> DenseUNet | DualUNet:
    """Build a U-shaped network of MONAI, opened for pre-training.

    ``dynunet`` and ``basic_unet`` normalize over groups of channels: a batch may be one patch, a bottleneck one voxel,
    and MoCo's queries cannot recognize the batch of their keys.

    Args:
        out_channels: K, background included.
        architecture: ``dynunet`` (the U-Net of nnU-Net), ``basic_unet`` (five levels, plain), or ``flexible_unet``
            (a ResNet or an EfficientNet, named by ``backbone`` in the options, with a decoder).
        spatial_dims: 2 or 3.
        in_channels: C.
        channels: ``dynunet``: of each level, three or more; ``basic_unet``: of its five levels, and as a sixth of the
            last features; ``flexible_unet``: of the five levels of the decoder.
        options: further arguments of MONAI's network.
        dropout: probability.
        dual: put a second encoder beside the network, see :class:`DualUNet`.

    Returns:
        A network that turns (B, C, *space) into logits (B, K, *space). Sizes must be multiples of 2^(levels - 1) for
        ``dynunet``.

    Raises:
        ConfigError: an unknown architecture, or what MONAI says of the options, in one sentence.

    Example:
        >>> import torch
        >>> network = dense_unet(3, spatial_dims=2, channels=(8, 16, 16))
        >>> tuple(network(torch.zeros(1, 1, 8, 12)).shape)
        (1, 3, 8, 12)
    """
    if architecture not in _BUILDERS:
        raise ConfigError(f"architecture '{architecture}' is none of {', '.join(_BUILDERS)}")
    if spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims is {spatial_dims}: give 2 for pictures or 3 for volumes")
    shared = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}

    def build() -> DenseUNet:
        try:
            return _BUILDERS[architecture](list(channels), dropout, **{**shared, **(options or {})})
        except (TypeError, ValueError, KeyError, IndexError, AssertionError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"architecture {architecture} cannot be built with channels {list(channels)} and network_options "
                f"{dict(options or {})}: {reason}"
            ) from None

    return DualUNet(build) if dual else build()


def _dynunet(channels: list[int], dropout: float, **arguments: Any) -> DenseUNet:
    levels = len(channels)
    defaults = {
        "kernel_size": [3] * levels,
        "strides": [1] + [2] * (levels - 1),
        "upsample_kernel_size": [2] * (levels - 1),
        "norm_name": _NORM,
    }
    return DenseDynUNet(filters=channels, dropout=dropout or None, **{**defaults, **arguments})


def _basic_unet(channels: list[int], dropout: float, **arguments: Any) -> DenseUNet:
    if len(channels) == 5:
        channels = [*channels, channels[0]]
    return DenseBasicUNet(features=channels, dropout=dropout, **{"norm": _NORM, **arguments})


def _flexible_unet(channels: list[int], dropout: float, **arguments: Any) -> DenseUNet:
    return DenseFlexibleUNet(decoder_channels=channels, dropout=dropout, **{"backbone": "resnet18", **arguments})


_BUILDERS: dict[str, Callable[..., DenseUNet]] = {
    "dynunet": _dynunet,
    "basic_unet": _basic_unet,
    "flexible_unet": _flexible_unet,
}
