# SPDX-License-Identifier: Apache-2.0
"""The color map JET, as the released code of PSM paints its maps before it clusters them."""

from __future__ import annotations

import torch
from torch import Tensor


def jet(maps: Tensor) -> Tensor:
    r"""Paint maps as OpenCV does with ``COLORMAP_JET``: 256 colors, blue first.

    For the value x = floor(255 m) / 255 a channel is :math:`\min(1, \max(0, 3/2 - |4 x - c|))` with c = 1, 2 and 3 for
    blue, green and red, rounded to 8 bits.

    Args:
        maps: (B, 1, *space) in [0, 1].

    Returns:
        (B, 3, *space) float32 in [0, 1], in the order blue, green, red.

    Example:
        >>> (255 * jet(torch.tensor([0.0, 1.0]).view(2, 1, 1))).flatten(1).tolist()
        [[128.0, 0.0, 0.0], [0.0, 0.0, 128.0]]
    """
    position = (255 * maps.double()).floor().clamp(0, 255) / 255
    channels = [(1.5 - (4 * position - center).abs()).clamp(0, 1) for center in (1, 2, 3)]
    return ((255 * torch.cat(channels, dim=1)).round() / 255).float()
