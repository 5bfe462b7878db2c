# SPDX-License-Identifier: Apache-2.0
"""Small heads that read logit maps and give features for the contrastive terms of Min-Max Similarity."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class LogitHead(nn.Module):
    """Turn a logit map into a grid of features.

    One 3x3 convolution, BatchNorm, ReLU and 2x2 max pooling per width, then a 1x1 convolution. There is no global
    pooling: every location of the grid is a feature vector of its own.

    Args:
        widths: channels after each stage; every stage halves the size.
        in_channels: channels of the logit map.

    References:
        Lou et al., Min-Max Similarity, IEEE TMI 2023, arXiv:2203.15177: projectors and classifiers, which read the
        segmentation logits rather than deep features and are never trained (Algorithm 1).
    """

    def __init__(self, widths: Sequence[int], in_channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, channels, kernel_size=1))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the features.

        Args:
            logits: (B, in_channels, H, W).

        Returns:
            (B, widths[-1], H / 2^n, W / 2^n) for n widths, sizes rounded down.
        """
        return self.layers(logits)


class Projector(LogitHead):
    """Features of unlabeled predictions for pixel-wise contrast: 16 channels at a quarter of the size.

    1,568 parameters for one channel of logits. See :class:`LogitHead`.

    Args:
        in_channels: channels of the logit map.
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__((8, 16), in_channels)


class Classifier(LogitHead):
    """Features of labeled predictions for all-negative contrast: 32 channels at an eighth of the size.

    7,056 parameters for one channel of logits. It classifies nothing; the name is the paper's. See
    :class:`LogitHead`.

    Args:
        in_channels: channels of the logit map.
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__((8, 16, 32), in_channels)
