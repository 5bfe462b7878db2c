# SPDX-License-Identifier: Apache-2.0
"""The loss of networks that learn from a pseudo mask and the Voronoi cells of the points found in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabel.losses.pixel_cross_entropy import check_label_shape, labeled_nll, log_probabilities

IGNORED = 255


class VoronoiLoss(nn.Module):
    r"""Take the background from a pseudo mask, seeds and borders from Voronoi cells.

    A pseudo mask is trusted where it says background, so that false positives do no harm; points say where objects
    are, and the edges of their Voronoi cells that neighbors are two. With CE averaged over the pixels on which the
    term speaks (0 where there is none) and m, v the channels of the target:

    .. math:: L = \mathrm{CE}_{m=0}(z, 0) + \lambda\,\mathrm{CE}_{v\neq 255}(z, v)
        + \mu\,\mathrm{CE}_{m>0, v\neq 0}(z, m)

    The third term is ours: with few steps the first two alone leave objects as small as their seeds. It believes the
    mask where it says object, except on edges of cells.

    Args:
        weight: lambda, of the second term.
        foreground_weight: mu, of the third; 0 is the paper's loss.
        double_softmax: the released code's behavior, see :class:`fewlabel.losses.PixelCrossEntropyLoss`.

    References:
        Chen et al., Exploring unsupervised cell recognition with prior self-activation maps, MICCAI 2023,
        arXiv:2308.11144; weight as in the authors' code. Voronoi labels: Qu et al., Weakly supervised deep nuclei
        segmentation using points annotation in histopathology images, MIDL 2019.

    Example:
        >>> target = torch.tensor([[0, 1, 1], [255, 1, 0]]).reshape(1, 2, 1, 3)  # surely background, a seed, an edge
        >>> logits = torch.tensor([[9.0, -9, 9], [-9, 9, -9]]).reshape(1, 2, 1, 3)
        >>> bool(VoronoiLoss()(logits, target) < 1e-6)
        True
    """

    def __init__(self, weight: float = 1.5, foreground_weight: float = 0.0, double_softmax: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.foreground_weight = foreground_weight
        self.double_softmax = double_softmax

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, K, *space), any floating type; class 0 is the background.
            target: (B, 2, *space), any type. Channel 0: pseudo mask, 0 background, else the class of the object.
                Channel 1: 0 edge, 1 (to K - 1) seed, 255 ignored.

        Returns:
            Scalar, >= 0, differentiable in ``logits``; in float32 or better, also inside autocast.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_label_shape(logits, target, channels=2)
        log_p = log_probabilities(logits, self.double_softmax)
        mask, voronoi = target[:, 0], target[:, 1]
        background = torch.where(mask == 0, 0, IGNORED)
        loss = labeled_nll(log_p, background, IGNORED) + self.weight * labeled_nll(log_p, voronoi, IGNORED)
        if not self.foreground_weight:
            return loss
        foreground = torch.where((mask > 0) & (voronoi != 0), mask, IGNORED)
        return loss + self.foreground_weight * labeled_nll(log_p, foreground, IGNORED)
