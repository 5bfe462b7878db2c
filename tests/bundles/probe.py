# SPDX-License-Identifier: Apache-2.0
"""A network whose answer is known beforehand, for tests of all that stands around a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bright(nn.Module):
    """Call a pixel foreground where its gray value, before the normalization by ImageNet, is above one half."""

    mean: Tensor
    std: Tensor

    def __init__(self, sharpness: float = 40.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of normalized pictures (B, 3, H, W)."""
        gray = (image.as_subclass(torch.Tensor) * self.std + self.mean).mean(dim=1, keepdim=True)
        return self.sharpness * (gray - 0.5)


class Dark(nn.Module):
    """Call a pixel nucleus where its green value is below 0.4: logits of two classes, of RGB in [0, 1]."""

    def __init__(self, sharpness: float = 40.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 2, H, W) of pictures (B, 3, H, W)."""
        nucleus = self.sharpness * (0.4 - image.as_subclass(torch.Tensor)[:, 1:2])
        return torch.cat([-nucleus, nucleus], dim=1)
