# SPDX-License-Identifier: Apache-2.0
"""MONAI's U-shaped networks, opened between encoder, decoder and head."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from monai.networks.nets import BasicUNet, DynUNet, FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn

from fewlabel.errors import ConfigError


class DenseUNet(nn.Module, ABC):
    """What pre-training of an encoder-decoder asks of a network: its features at the bottleneck and at full size.

    Mixed into a network of MONAI, it adds methods and nothing else: constructor, ``forward``, names and shapes of the
    weights are MONAI's, so that the weights of one fit the other. ``network(x)`` is
    ``network.segment(network.decode(network.encode(x)))``. All three can be scripted.
    """

    if TYPE_CHECKING:  # MONAI's layers are not typed

        def __getattr__(self: Any, name: str) -> Any: ...

    @abstractmethod
    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of all levels of the encoder.

        Args:
            image: (B, C, *space).

        Returns:
            Shallow to deep, (B, widths()[i], *space_i); the last one is the bottleneck.
        """

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the features that the head reads.

        Args:
            features: of :meth:`encode`.

        Returns:
            (B, dense_width(), *space), of the size of the image.
        """

    @abstractmethod
    def segment(self, dense: Tensor) -> Tensor:
        """Return logits.

        Args:
            dense: of :meth:`decode`.

        Returns:
            (B, K, *space).
        """

    @abstractmethod
    def widths(self) -> list[int]:
        """Return the channels of each level of :meth:`encode`."""

    @abstractmethod
    def stride(self) -> list[int]:
        """Return how many pixels of the image one of the bottleneck spans, along each axis."""

    @abstractmethod
    def dense_width(self) -> int:
        """Return the channels of :meth:`decode`."""

    @abstractmethod
    def encoder_parts(self) -> list[nn.Module]:
        """Return the modules that :meth:`encode` runs."""

    @abstractmethod
    def decoder_parts(self) -> list[nn.Module]:
        """Return the modules that :meth:`decode` runs."""

    def encoder_module(self) -> nn.Module:
        """Return a module of its own, on the same weights, whose ``forward`` is :meth:`encode`."""
        return Stages(self.encoder_parts())

    def trunk_state_dict(self) -> dict[str, Tensor]:
        """Return the weights of encoder and decoder, what pre-training has to give: no head, no layers that never run.

        ``fewlabel.networks.load_weights`` fills another network of the same architecture with them, whatever its
        number of classes.
        """
        parts = [*self.encoder_parts(), *self.decoder_parts()]
        trunk = {id(t) for part in parts for t in part.state_dict(keep_vars=True).values()}
        state = self.state_dict(keep_vars=True)
        return {name: tensor.detach() for name, tensor in state.items() if id(tensor) in trunk}

    def train_only(self, parts: Iterable[nn.Module]) -> None:
        """Let the weights of these parts ask for a gradient, and no others.

        Args:
            parts: of :meth:`encoder_parts` and :meth:`decoder_parts`.
        """
        self.requires_grad_(False)
        for part in parts:
            part.requires_grad_(True)


class Stages(nn.ModuleList):
    """Run modules one after the other and return what each has made."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features.

        Args:
            image: what the first stage takes.

        Returns:
            One tensor per stage, in order.
        """
        features: list[Tensor] = []
        x = image
        for stage in self:
            x = stage(x)
            features.append(x)
        return features


class DenseBasicUNet(DenseUNet, BasicUNet):
    """MONAI's ``BasicUNet``, five levels of two convolutions each; see :class:`DenseUNet`.

    Example:
        >>> import torch
        >>> network = DenseBasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 4, 8, 8, 16, 6))
        >>> features = network.encode(torch.zeros(1, 1, 32, 48))
        >>> [tuple(f.shape[1:]) for f in (features[-1], network.decode(features))]
        [(16, 2, 3), (6, 32, 48)]
    """

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of strides 1, 2, 4, 8 and 16; see :meth:`DenseUNet.encode`."""
        x0 = self.conv_0(image)
        x1 = self.down_1(x0)
        x2 = self.down_2(x1)
        x3 = self.down_3(x2)
        return [x0, x1, x2, x3, self.down_4(x3)]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return features of the image's size; see :meth:`DenseUNet.decode`."""
        x = self.upcat_4(features[4], features[3])
        x = self.upcat_3(x, features[2])
        x = self.upcat_2(x, features[1])
        return self.upcat_1(x, features[0])

    def segment(self, dense: Tensor) -> Tensor:
        """Return logits; see :meth:`DenseUNet.segment`."""
        return self.final_conv(dense)

    def widths(self) -> list[int]:
        """Return the channels of the five levels."""
        downs = (self.down_1, self.down_2, self.down_3, self.down_4)
        return [block.conv_1.conv.out_channels for block in (self.conv_0, *(down.convs for down in downs))]

    def stride(self) -> list[int]:
        """Return 16, from four halvings."""
        return [16] * (self.final_conv.weight.ndim - 2)

    def dense_width(self) -> int:
        """Return the channels that the last convolution reads."""
        return int(self.final_conv.in_channels)

    def encoder_parts(self) -> list[nn.Module]:
        """Return the modules of the way down."""
        return [self.conv_0, self.down_1, self.down_2, self.down_3, self.down_4]

    def decoder_parts(self) -> list[nn.Module]:
        """Return the modules of the way up."""
        return [self.upcat_4, self.upcat_3, self.upcat_2, self.upcat_1]


class DenseDynUNet(DenseUNet, DynUNet):
    """MONAI's ``DynUNet``, the U-Net of nnU-Net; see :class:`DenseUNet`.

    The first stride must be 1, so that the features have the size of the image. Heads of deep supervision belong to
    the head: pre-training leaves them alone.

    Args:
        *args: of ``DynUNet``.
        **kwargs: of ``DynUNet``.

    Raises:
        ConfigError: when the first stride is not 1.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        first = self.strides[0]
        if ({first} if isinstance(first, int) else set(first)) != {1}:
            raise ConfigError(f"the first of the strides is {first}: give 1, so that dense features have full size")

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of input block, downsamples and bottleneck; see :meth:`DenseUNet.encode`."""
        x = self.input_block(image)
        features = [x]
        for block in self.downsamples:
            x = block(x)
            features.append(x)
        features.append(self.bottleneck(x))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return features of the image's size; see :meth:`DenseUNet.decode`."""
        x = features[-1]
        for i, block in enumerate(self.upsamples):
            x = block(x, features[-2 - i])
        return x

    def segment(self, dense: Tensor) -> Tensor:
        """Return logits; see :meth:`DenseUNet.segment`."""
        return self.output_block(dense)

    def widths(self) -> list[int]:
        """Return the channels of all levels."""
        return list(self.filters)

    def stride(self) -> list[int]:
        """Return the product of all strides along each axis."""
        steps = [[n] * self.spatial_dims if isinstance(n, int) else n for n in self.strides]
        return [math.prod(axis) for axis in zip(*steps, strict=True)]

    def dense_width(self) -> int:
        """Return the channels of the first level."""
        return int(self.filters[0])

    def encoder_parts(self) -> list[nn.Module]:
        """Return the modules of the way down."""
        return [self.input_block, *self.downsamples, self.bottleneck]

    def decoder_parts(self) -> list[nn.Module]:
        """Return the modules of the way up."""
        return list(self.upsamples)


class DenseFlexibleUNet(DenseUNet, FlexibleUNet):
    """MONAI's ``FlexibleUNet``, a ResNet or an EfficientNet with a decoder; see :class:`DenseUNet`.

    Its encoder begins at stride 2, which makes it the cheapest of the three per layer; its last decoder level doubles
    the size without a skip connection. Give images of even sizes.
    """

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of strides 2, 4, 8, 16 and 32; see :meth:`DenseUNet.encode`."""
        return self.encoder(image)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return features of the image's size; see :meth:`DenseUNet.decode`."""
        return self.decoder(features, self.skip_connect)

    def segment(self, dense: Tensor) -> Tensor:
        """Return logits; see :meth:`DenseUNet.segment`."""
        return self.segmentation_head(dense)

    def widths(self) -> list[int]:
        """Return the channels of the five levels."""
        return list(FLEXUNET_BACKBONE.register_dict[self.backbone]["feature_channel"])

    def stride(self) -> list[int]:
        """Return 32, from five halvings."""
        return [32] * (self.segmentation_head[0].weight.ndim - 2)

    def dense_width(self) -> int:
        """Return the channels that the head reads."""
        return int(self.segmentation_head[0].in_channels)

    def encoder_parts(self) -> list[nn.Module]:
        """Return the modules of the backbone, but for the classifier that an EfficientNet drags along."""
        idle = ("_conv_head", "_bn1", "_fc")
        return [module for name, module in self.encoder.named_children() if name not in idle]

    def decoder_parts(self) -> list[nn.Module]:
        """Return the decoder."""
        return [self.decoder]

    def encoder_module(self) -> nn.Module:
        """Return the backbone."""
        return self.encoder
