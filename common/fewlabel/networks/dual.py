# SPDX-License-Identifier: Apache-2.0
"""Two encoders, pre-trained apart, in front of one decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from fewlabel.networks.dense import DenseUNet
from fewlabel.networks.weights import load_weights


class DualUNet(nn.Module):
    """Segment with the features of a finished encoder beside those of a U-Net that learned from regions alone.

    At every level, the features of the two encoders are concatenated and a 1x1 convolution restores the width, so that
    the decoder is the one that pre-training knows. The convolutions begin as the local encoder's features plus nothing
    of the other's: fine-tuning starts from the network that was pre-trained, and what the other encoder adds is
    learned, from the first step on.

    Args:
        build: makes one network, called twice without arguments; of the first, only the encoder is kept.

    References:
        Localized region contrast (Yan et al., arXiv:2304.03406) is said to be a module that improves any finished
        pre-training, supervised ones too; how two encoders meet is our choice.

    Example:
        >>> from fewlabel.networks import DenseBasicUNet
        >>> dual = DualUNet(lambda: DenseBasicUNet(2, 1, 3, (4, 4, 8, 8, 16, 6)))
        >>> image = torch.rand(1, 1, 32, 32)
        >>> bool(torch.allclose(dual(image), dual.local_network(image), atol=1e-5))
        True
    """

    def __init__(self, build: Callable[[], DenseUNet]) -> None:
        super().__init__()
        self._build = build
        self.global_encoder = build().encoder_module()
        self.local_network = build()
        conv = Conv[Conv.CONV, max(weight.ndim for weight in self.local_network.parameters()) - 2]
        self.fuse = nn.ModuleList(_first_half(conv(2 * width, width, 1)) for width in self.local_network.widths())

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Args:
            image: (B, C, *space).

        Returns:
            (B, K, *space).
        """
        local = self.local_network.encode(image)
        other = self.global_encoder(image)
        fused: list[Tensor] = []
        for i, conv in enumerate(self.fuse):
            fused.append(conv(torch.cat([local[i], other[i]], dim=1)))
        return self.local_network.segment(self.local_network.decode(fused))

    @torch.jit.unused
    def load_pretrained(
        self, global_checkpoint: str | Path | None = None, local_checkpoint: str | Path | None = None
    ) -> None:
        """Fill the encoder and the U-Net from the checkpoints of two networks of this architecture.

        Args:
            global_checkpoint: of any training that leaves a good encoder; None leaves it as it is.
            local_checkpoint: of the pre-training on regions; None leaves the U-Net as it is.

        Raises:
            ConfigError: when a file is missing or nothing of it fits.
        """
        if global_checkpoint is not None:
            donor = self._build()
            load_weights(donor, global_checkpoint, key="global_checkpoint")
            self.global_encoder.load_state_dict(donor.encoder_module().state_dict())
        if local_checkpoint is not None:
            load_weights(self.local_network, local_checkpoint, key="local_checkpoint")


@torch.no_grad()
def _first_half(conv: Any) -> Any:
    """Let a 1x1 convolution return the first half of its channels."""
    conv.weight.zero_().flatten(1)[:, : conv.out_channels].fill_diagonal_(1)
    conv.bias.zero_()
    return conv
