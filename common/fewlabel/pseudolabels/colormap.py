# SPDX-License-Identifier: Apache-2.0
"""The color map JET, as the released code of PSM paints its maps before it clusters them."""

from __future__ import annotations

import torch
from torch import Tensor


def jet(maps: Tensor) -> Tensor:
    r"""Paint maps as OpenCV does with ``COLORMAP_JET``: 256 colors, blue first.

    Of the level n = floor(255 m) a channel is :math:`\min(255, \max(0, 382.5 - |4 n - 255 c|))` with c = 1, 2 and 3 for
    blue, green and red, rounded to whole numbers (halves to even ones).

    Args:
        maps: (B, 1, *space) in [0, 1].

    Returns:
        (B, 3, *space) float32 in [0, 1], in the order blue, green, red: OpenCV's colors / 255, but for level 159, of
        which OpenCV's table has a blue of 1 where the formula gives 2.

    Example:
        >>> (255 * jet(torch.tensor([0.0, 1.0]).view(2, 1, 1))).flatten(1).tolist()
        [[128.0, 0.0, 0.0], [0.0, 0.0, 128.0]]
    """
    level = (255 * maps.double()).floor().clamp(0, 255)
    channels = [(382.5 - (4 * level - 255 * center).abs()).clamp(0, 255) for center in (1, 2, 3)]
    return (torch.cat(channels, dim=1).round() / 255).float()
