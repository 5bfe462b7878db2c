# SPDX-License-Identifier: Apache-2.0
"""Cross entropy plus intersection over union, both weighted towards the boundary of the mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError


class StructureLoss(nn.Module):
    r"""Weigh pixels near a boundary more, in a cross-entropy and in a soft-IoU part.

    With p = sigmoid(z), target y and weight w = 1 + emphasis * \|box_mean(y) - y\|, per image

    .. math:: \ell(z, y) = \frac{\sum w\,\mathrm{BCE}(p, y)}{\sum w} + 1 - \frac{\sum w p y + 1}
        {\sum w (p + y) - \sum w p y + 1}

    averaged over images and channels. Soft targets in [0, 1] are allowed.

    Args:
        window: side of the box, odd, in pixels of the network's input.
        emphasis: how much the weight grows at boundaries; 0 weighs all pixels alike.
        double_sigmoid: the released code's behavior: the cross entropy applies a sigmoid to p instead of z.
        weighted_bce: False is the released code's behavior: the cross entropy is a plain mean.

    Raises:
        ConfigError: when ``window`` is not a positive odd number.

    Note:
        Computed in float32 (float64 for float64 logits), also inside autocast. The box mean takes two passes of one
        row and one column, about ten times faster than the square window on a CPU.

    References:
        Called structure loss in F3Net (Wei et al., AAAI 2020, arXiv:1911.11445) and PraNet (Fan et al., MICCAI 2020,
        arXiv:2006.11392); L_sup of Min-Max Similarity (Lou et al., IEEE TMI 2023, arXiv:2203.15177).

    Example:
        >>> mask = torch.zeros(1, 1, 8, 8)
        >>> bool(StructureLoss()(mask - 20, mask) < 1e-6)
        True
    """

    def __init__(
        self, window: int = 31, emphasis: float = 5.0, double_sigmoid: bool = False, weighted_bce: bool = True
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ConfigError(f"window of the structure loss is {window}: give a positive odd number of pixels")
        self.window = window
        self.emphasis = emphasis
        self.double_sigmoid = double_sigmoid
        self.weighted_bce = weighted_bce

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, K, H, W), any floating type; K independent classes.
            target: (B, K, H, W) in [0, 1], any type; receives no gradient.

        Returns:
            Scalar, >= 0, differentiable in ``logits``.

        Raises:
            ValueError: when the two shapes differ.
        """
        if logits.shape != target.shape:
            raise ValueError(f"logits and target differ in shape: {tuple(logits.shape)} and {tuple(target.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            z = logits if logits.dtype == torch.float64 else logits.float()
            y = target.detach().to(z.dtype)
            weight = 1 + self.emphasis * (box_mean(y, self.window) - y).abs()
            p = torch.sigmoid(z)
            overlap = (weight * p * y).sum((2, 3))
            union = (weight * (p + y)).sum((2, 3)) - overlap
            return (
                self._cross_entropy(p if self.double_sigmoid else z, y, weight) + 1 - (overlap + 1) / (union + 1)
            ).mean()

    def _cross_entropy(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return (B, K), or a scalar in the released form."""
        if not self.weighted_bce:
            return F.binary_cross_entropy_with_logits(logits, target)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weight * entropy).sum((2, 3)) / weight.sum((2, 3))


def box_mean(x: Tensor, window: int) -> Tensor:
    """Return the mean over a square window around every pixel, zeros beyond the border.

    Args:
        x: (B, K, H, W), floating.
        window: side of the square, odd.

    Returns:
        Same shape and type.
    """
    half = window // 2
    rows = F.avg_pool2d(x, (window, 1), stride=1, padding=(half, 0))
    return F.avg_pool2d(rows, (1, window), stride=1, padding=(0, half))
