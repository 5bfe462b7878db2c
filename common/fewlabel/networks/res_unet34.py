# SPDX-License-Identifier: Apache-2.0
"""U-shaped network on a ResNet-34 encoder: the segmentation network of PSM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.networks.encoders import build_timm
from fewlabel.networks.weights import load_weights

RESNET34 = (64, (3, 4, 6, 3))


class ResUNet34(nn.Module):
    """Segment with a ResNet-34 encoder of strides 2 to 32 and a decoder of transposed convolutions.

    With w = ``width``, the encoder gives w, w, 2w, 4w, 8w channels at strides 2, 4, 8, 16, 32. Each of four decoder
    levels doubles the size and halves the channels (transposed convolution), concatenates the encoder's features there
    and fuses, to 4w, 2w, w and w channels. A last transposed convolution gives logits at the size of the image. The
    default has 24.40 M parameters, 21.28 M of them in the encoder.

    Any height and width from 32 on work: the image is mirrored at its right and lower edge up to multiples of 32, and
    the logits are cropped back. Multiples of 32 pay nothing for it.

    Args:
        out_channels: channels of the logits, exclusive classes.
        width: channels of the first features, a multiple of 16; 64 is ResNet-34.
        pretrained: False starts from random weights without network access; True lets timm download ImageNet's; a path
            loads a ``.pt`` or ``.safetensors`` state dict of timm's or torchvision's ``resnet34`` (what does not fit is
            logged).
        dropout: probability to drop a whole feature map after each convolution of the decoder, while training; 0 to
            below 1.
        blocks: residual blocks of the four stages.

    Raises:
        ConfigError: when ``dropout`` or ``width`` is out of range, when ImageNet's weights are asked for another
            width or depth, cannot be downloaded, or when nothing in the file of ``pretrained`` fits.

    Note:
        Activations are kept channels-last, which is about a quarter faster on CPUs and what tensor cores want.

    References:
        He et al., Deep residual learning for image recognition, CVPR 2016, arXiv:1512.03385; decoder as in the code of
        Qu et al., Weakly supervised deep nuclei segmentation using points annotation in histopathology images, MIDL
        2019, which Chen et al., MICCAI 2023, arXiv:2308.11144, use. There the encoder's features are padded, one
        level after the other; padding the image keeps all levels aligned, and is the same at multiples of 32.
    """

    def __init__(
        self,
        out_channels: int = 2,
        width: int = 64,
        pretrained: bool | str | Path = False,
        dropout: float = 0.1,
        blocks: Sequence[int] = (3, 4, 6, 3),
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout is {dropout}: give a probability from 0 to below 1")
        if width < 16 or width % 16:
            # Of fewer than 16 channels, channels-last, oneDNN's gradient of a strided 1x1 convolution writes beyond
            # its buffer (its issue 6035, open with torch 2.14).
            raise ConfigError(f"width is {width}: give a multiple of 16 channels; ResNet-34 has 64")
        self.encoder = _encoder(width, tuple(blocks), pretrained)
        self.levels = nn.ModuleList(
            [
                DecoderLevel(8 * width, 4 * width, 4 * width, dropout),
                DecoderLevel(4 * width, 2 * width, 2 * width, dropout),
                DecoderLevel(2 * width, width, width, dropout),
                DecoderLevel(width, width, width, dropout),
            ]
        )
        self.head = nn.ConvTranspose2d(width, out_channels, kernel_size=2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Args:
            image: (B, 3, H, W) floating point, H and W at least 32.

        Returns:
            (B, out_channels, H, W) logits.
        """
        height, width = image.shape[-2], image.shape[-1]
        padded = F.pad(image, (0, -width % 32, 0, -height % 32), mode="reflect")
        features = self.encoder(padded.contiguous(memory_format=torch.channels_last))
        x = features[-1]
        for i, level in enumerate(self.levels):
            x = level(x, features[-2 - i])
        return self.head(x)[..., :height, :width]


class ResNetEncoder(nn.Module):
    """The five features of a ResNet of basic blocks, with the names of timm's and torchvision's weights.

    Args:
        width: channels of the first feature.
        blocks: residual blocks of the four stages.
    """

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return features at strides 2, 4, 8, 16, 32.

        Args:
            image: (B, 3, H, W), H and W multiples of 32.

        Returns:
            (B, c, H / r, W / r) with c = w, w, 2w, 4w, 8w.
        """
        c1 = F.relu(self.bn1(self.conv1(image)))
        c2 = self.layer1(F.max_pool2d(c1, kernel_size=3, stride=2, padding=1))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c1, c2, c3, c4, self.layer4(c4)]


class DecoderLevel(nn.Module):
    """Double the size, halve the channels, concatenate the skip connection, and fuse.

    Args:
        deep: channels that come from below.
        skip: channels of the skip connection.
        out_channels: channels that leave.
        dropout: probability to drop a feature map after each convolution.
    """

    def __init__(self, deep: int, skip: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deep, deep // 2, kernel_size=2, stride=2)
        layers: list[nn.Module] = []
        for channels in (deep // 2 + skip, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.BatchNorm2d(out_channels),
                nn.Dropout2d(dropout),
            ]
        self.fuse = nn.Sequential(*layers)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Return the fused features.

        Args:
            deep: (B, deep, H, W).
            skip: (B, skip, 2H, 2W).

        Returns:
            (B, out_channels, 2H, 2W).
        """
        return self.fuse(torch.cat([self.up(deep), skip], dim=1))


def _stage(channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Residual blocks, the first of which changes size and channels, where they change."""
    shortcut = None
    if stride != 1 or channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    first = BasicBlock(channels, out_channels, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *[BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)])


def _encoder(width: int, blocks: tuple[int, ...], pretrained: bool | str | Path) -> ResNetEncoder:
    if len(blocks) != 4 or min(blocks) < 1:
        raise ConfigError(f"blocks is {list(blocks)}: give four numbers from 1 on; ResNet-34 has [3, 4, 6, 3]")
    encoder = ResNetEncoder(width, blocks)
    if pretrained is True:
        if (width, blocks) != RESNET34:
            raise ConfigError(f"pretrained is true, but with width {width} and blocks {list(blocks)}: give false")
        encoder.load_state_dict(build_timm("resnet34", {}, True, num_classes=0).state_dict())
    elif pretrained:
        load_weights(encoder, pretrained, key="pretrained")
    return encoder
