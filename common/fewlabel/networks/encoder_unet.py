# SPDX-License-Identifier: Apache-2.0
"""U-shaped network: any four-level timm encoder, and the decoder of Min-Max Similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.networks.encoders import build_timm
from fewlabel.networks.weights import load_weights

REDUCTIONS = (2, 4, 8, 16)


class EncoderUNet(nn.Module):
    """Segment with a timm encoder of strides 2, 4, 8, 16 and a U-Net decoder.

    Each of three decoder levels doubles the size (bilinear, corners aligned), narrows to the width of the encoder's
    features there, concatenates these and fuses; a last doubling and a 1x1 convolution give the logits. All decoder
    widths are the encoder's. With ``res2net101d`` this is the network of Min-Max Similarity: 28.18 M parameters in
    the encoder (its fourth stage, which the method never runs, is not built) and 27.40 M in the decoder.

    Any height and width work: the image is padded at its right and lower edge by repeating the border up to multiples
    of 16, and the logits are cropped back. Multiples of 16 pay nothing for it.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        encoder: name of a timm model whose features come at strides 2, 4, 8 and 16.
        encoder_options: further arguments of ``timm.create_model``, such as
            ``{"channels": [16, 32, 64, 128], "stem_width": 8}`` for a slim ``resnet18d``.
        pretrained: False starts from random weights without network access; True lets timm download its weights;
            a path loads a ``.pt`` or ``.safetensors`` state dict of the timm model (what does not fit is logged).
        dropout: probability to drop a whole feature map of the deepest features and of those before the last
            convolution, while training; 0 to below 1.

    Raises:
        ConfigError: when ``dropout`` is out of range, when timm does not know the encoder or its options, when its
            strides differ, or when nothing in the file of ``pretrained`` fits.

    Note:
        Activations are kept channels-last, which is about a quarter faster on CPUs and what tensor cores want.

    References:
        Lou et al., Min-Max Similarity, IEEE TMI 2023, arXiv:2203.15177. The encoder is Res2Net-101-v1b-26w-4s
        (Gao et al., arXiv:1904.01169). The method has no dropout; where to put it is our choice.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        encoder: str = "res2net101d",
        encoder_options: Mapping[str, Any] | None = None,
        pretrained: bool | str | Path = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout is {dropout}: give a probability from 0 to below 1")
        self.encoder, widths = _build_encoder(encoder, in_channels, dict(encoder_options or {}), pretrained)
        self.decoder = Decoder(widths, out_channels, dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Args:
            image: (B, in_channels, H, W) floating point, normalized as the encoder expects.

        Returns:
            (B, out_channels, H, W) logits.
        """
        height, width = image.shape[-2], image.shape[-1]
        stride = 16  # REDUCTIONS[-1], a literal for TorchScript
        padded = F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")
        logits = self.decoder(self.encoder(padded.contiguous(memory_format=torch.channels_last)))
        return logits[..., :height, :width]


class Decoder(nn.Module):
    """Climb from stride 16 to stride 1 through three skip connections; see :class:`EncoderUNet`.

    Args:
        channels: widths of the encoder's features, shallow to deep: strides 2, 4, 8, 16.
        out_channels: channels of the logits.
        dropout: probability to drop a feature map, at the deepest features and before the last convolution.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        deep = channels[-1]
        levels = []
        for skip in reversed(channels[:-1]):
            levels.append(DecoderLevel(deep, skip))
            deep = skip
        self.levels = nn.ModuleList(levels)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(deep, out_channels, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits.

        Args:
            features: one (B, channels[i], H / r, W / r) per reduction r = 2, 4, 8, 16.

        Returns:
            (B, out_channels, H, W) logits.
        """
        x = self.dropout(features[-1])
        for i, level in enumerate(self.levels):
            x = level(x, features[-2 - i])
        return self.head(_double(self.dropout(x)))


class DecoderLevel(nn.Module):
    """Double the size, narrow to the width of the skip connection, and fuse with it.

    Args:
        deep: channels that come from below.
        skip: channels of the skip connection and of the result.
    """

    def __init__(self, deep: int, skip: int) -> None:
        super().__init__()
        self.narrow = conv_block(deep, deep, skip)
        self.fuse = conv_block(2 * skip, skip, skip)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Return the fused features.

        Args:
            deep: (B, deep, H, W).
            skip: (B, skip, 2H, 2W).

        Returns:
            (B, skip, 2H, 2W).
        """
        return self.fuse(torch.cat([skip, self.narrow(_double(deep))], dim=1))


def conv_block(in_channels: int, mid_channels: int, out_channels: int) -> nn.Sequential:
    """Return twice 3x3 convolution, BatchNorm and LeakyReLU (slope 0.01): Block(i, m, o) of the method.

    Args:
        in_channels: channels that enter.
        mid_channels: channels between the two convolutions.
        out_channels: channels that leave.

    Returns:
        A module that keeps height and width.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(mid_channels),
        nn.LeakyReLU(0.01, inplace=True),
        nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.01, inplace=True),
    )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def _build_encoder(
    name: str, in_channels: int, options: dict[str, Any], pretrained: bool | str | Path
) -> tuple[nn.Module, list[int]]:
    """Return the encoder and the widths of its four features."""
    encoder: Any = build_timm(
        name, options, pretrained, features_only=True, out_indices=(0, 1, 2, 3), in_chans=in_channels
    )
    found = tuple(encoder.feature_info.reduction())
    if found != REDUCTIONS:
        raise ConfigError(f"encoder '{name}' has features at strides {found}, not {REDUCTIONS}: choose another one")
    _drop_unused_blocks(encoder)
    if pretrained and pretrained is not True:
        load_weights(encoder, pretrained, key="pretrained")
    return encoder, list(encoder.feature_info.channels())


def _drop_unused_blocks(encoder: Any) -> None:
    """Cut the blocks after the deepest feature; timm keeps and runs them in its EfficientNet and MobileNet families.

    Their parameters would get no gradient, which distributed training refuses.
    """
    stages = [info.get("stage") for info in encoder.feature_info.get_dicts()]
    if isinstance(getattr(encoder, "blocks", None), nn.Sequential) and None not in stages:
        encoder.blocks = encoder.blocks[: max(stages)]
