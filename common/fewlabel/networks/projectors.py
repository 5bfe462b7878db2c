# SPDX-License-Identifier: Apache-2.0
"""Projectors of contrastive pre-training: thrown away when it is done."""

from __future__ import annotations

from torch import Tensor, nn


class GlobalProjector(nn.Module):
    """Turn the bottleneck of an image into one vector: mean over space, then two linear layers.

    Args:
        in_channels: of the bottleneck.
        out_channels: of the vector.
        norm: put BatchNorm between the layers, as BYOL and SimSiam need; MoCo v2 has none.

    References:
        Chen et al., Improved baselines with momentum contrastive learning, arXiv:2003.04297, section 3.
    """

    def __init__(self, in_channels: int, out_channels: int = 128, norm: bool = False) -> None:
        super().__init__()
        self.layers = two_layers(in_channels, in_channels, out_channels, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Return the vectors.

        Args:
            features: (B, in_channels, *space).

        Returns:
            (B, out_channels), not normalized.
        """
        return self.layers(features.flatten(2).mean(dim=2))


class DenseProjector(nn.Module):
    """Project single pixels: 1x1 convolution, BatchNorm, ReLU, 1x1 convolution.

    A 1x1 convolution is a linear layer on the pixels, so only the pixels that a loss has sampled need to be projected,
    a few per cent of all. BatchNorm then takes its statistics from these alone. As regions are drawn alike whatever
    their size, large ones (background, muscle) do not dominate them as they would those of a whole map; that is what
    the loss sees, too. Of a whole map: ``projector(features.movedim(1, -1)).movedim(-1, 1)``.

    Args:
        in_channels: of the features.
        out_channels: of the projection and of the layer between.
    """

    def __init__(self, in_channels: int, out_channels: int = 128) -> None:
        super().__init__()
        self.layers = two_layers(in_channels, out_channels, out_channels, norm=True)

    def forward(self, points: Tensor) -> Tensor:
        """Return the projections.

        Args:
            points: (..., in_channels), at least two points while training.

        Returns:
            (..., out_channels), not normalized.
        """
        return self.layers(points.flatten(0, -2)).unflatten(0, points.shape[:-1])


def two_layers(in_channels: int, hidden_channels: int, out_channels: int, norm: bool) -> nn.Sequential:
    """Return linear layer, BatchNorm where wanted, ReLU and linear layer.

    Args:
        in_channels: what enters.
        hidden_channels: between the layers.
        out_channels: what leaves.
        norm: whether there is BatchNorm.
    """
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels, bias=not norm),
        nn.BatchNorm1d(hidden_channels) if norm else nn.Identity(),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_channels, out_channels),
    )
