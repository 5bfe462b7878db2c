# SPDX-License-Identifier: Apache-2.0
"""Agreement on unlabeled images: with a teacher's probabilities, or with each other's hard labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProbabilityMSELoss(nn.Module):
    """Mean squared difference between the probabilities of a student and of its teacher.

    Mean over all pixels of (sigmoid(s) - sigmoid(t))^2, the teacher held constant; in float32, also inside autocast.

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss.

        Args:
            student: (B, K, H, W) logits.
            teacher: (B, K, H, W) logits; receives no gradient.

        Returns:
            Scalar in [0, 1], differentiable in ``student``.
        """
        return (torch.sigmoid(student.float()) - torch.sigmoid(teacher.detach().float())).square().mean()


class CrossPseudoLoss(nn.Module):
    """Let each of two networks learn the other's hard prediction.

    loss(a, [b > 0]) + loss(b, [a > 0]): a logit above 0 is a probability above a half. The labels are constants.

    Args:
        loss: compares logits with a mask of the same shape; the paper takes the cross entropy of supervision.

    References:
        Chen et al., Semi-supervised semantic segmentation with cross pseudo supervision, CVPR 2021, arXiv:2106.01226.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss.

        Args:
            first: (B, K, H, W) logits of one network.
            second: (B, K, H, W) logits of the other.

        Returns:
            Scalar, differentiable in both.
        """
        forth: Tensor = self.loss(first, (second.detach() > 0).float())
        back: Tensor = self.loss(second, (first.detach() > 0).float())
        return forth + back


def sigmoid_ramp_up(iteration: Tensor, length: int) -> Tensor:
    """Return a weight that rises smoothly from 0.0067 to 1: exp(-5 (1 - t)^2), t = iteration / length up to 1.

    Args:
        iteration: scalar tensor, iterations done so far.
        length: iterations until the weight is 1; 0 means 1 from the beginning.

    Returns:
        Scalar, float32, on the device of ``iteration`` (no synchronization).

    References:
        Laine and Aila, Temporal ensembling, ICLR 2017, arXiv:1610.02242.

    Example:
        >>> sigmoid_ramp_up(torch.tensor([0, 50, 100, 200]), 100)
        tensor([0.0067, 0.2865, 1.0000, 1.0000])
    """
    remaining = 1 - (iteration.float() / length).clamp(max=1.0) if length > 0 else torch.zeros_like(iteration.float())
    return torch.exp(-5 * remaining.square())
