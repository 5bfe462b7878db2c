# SPDX-License-Identifier: Apache-2.0
"""Cross entropy of pixels with one class each, where some pixels say nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PixelCrossEntropyLoss(nn.Module):
    """Mean over the labeled pixels of the batch of -log p of their class, p = softmax of the logits.

    Unlike PyTorch's cross entropy it takes a label map with a channel, of any type, and is 0, not NaN, when no pixel
    is labeled.

    Args:
        double_softmax: the behavior of the code released with PSM: p = softmax(softmax(logits)). The loss of two
            classes then lies in [0.3133, 1.3133] whatever the logits, and its gradient is damped.
        ignore_value: label of the pixels that say nothing.

    Example:
        >>> logits = torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
        >>> PixelCrossEntropyLoss()(logits, torch.tensor([[[[0, 1, 255]]]]))
        tensor(0.6931)
    """

    def __init__(self, double_softmax: bool = False, ignore_value: int = 255) -> None:
        super().__init__()
        self.double_softmax = double_softmax
        self.ignore_value = ignore_value

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, K, *space), any floating type; K exclusive classes.
            label: (B, 1, *space), class 0 to K - 1 or ``ignore_value``, any type; receives no gradient.

        Returns:
            Scalar, >= 0, differentiable in ``logits``; computed in float32 (float64 for float64 logits), also inside
            autocast.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_label_shape(logits, label, channels=1)
        return labeled_nll(log_probabilities(logits, self.double_softmax), label[:, 0], self.ignore_value)


def log_probabilities(logits: Tensor, double_softmax: bool = False) -> Tensor:
    """Return log softmax over the channels, in float32 or better.

    Args:
        logits: (B, K, *space).
        double_softmax: of the softmax, see :class:`PixelCrossEntropyLoss`.

    Returns:
        (B, K, *space).
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(torch.softmax(z, dim=1) if double_softmax else z, dim=1)


def labeled_nll(log_p: Tensor, label: Tensor, ignore_value: int) -> Tensor:
    """Return the mean of -log p of the labeled pixels; 0 when there is none.

    Args:
        log_p: (B, K, *space) logarithms of probabilities.
        label: (B, *space), classes or ``ignore_value``, any type.
        ignore_value: see :class:`PixelCrossEntropyLoss`.

    Returns:
        Scalar, differentiable in ``log_p``.
    """
    classes = label.detach().long()
    total = F.nll_loss(log_p, classes, ignore_index=ignore_value, reduction="sum")
    return total / (classes != ignore_value).sum().clamp(min=1)


def check_label_shape(logits: Tensor, label: Tensor, channels: int) -> None:
    """Refuse a label that is not on the grid of the logits, or has another number of channels.

    Args:
        logits: (B, K, *space).
        label: (B, channels, *space).
        channels: what the loss reads.

    Raises:
        ValueError: when it is another shape.
    """
    expected = (logits.shape[0], channels, *logits.shape[2:])
    if tuple(label.shape) != expected:
        raise ValueError(f"label has shape {tuple(label.shape)}, expected {expected} for logits {tuple(logits.shape)}")
