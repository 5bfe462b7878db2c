# SPDX-License-Identifier: Apache-2.0
"""Dice and cross entropy from labels that tell some of the classes only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.losses.pixel_cross_entropy import check_label_shape

BASES = ("dice_ce", "dice", "ce")


class PartialLabelLoss(nn.Module):
    """Dice plus cross entropy in which classes without annotation count neither as class nor as background.

    Where a class c was not annotated, "background" in the label means "background or c". The marginal loss compares it
    with the probability of just that: per item, p'_0 = p_0 + sum of p_c over the classes that are not annotated, the
    other p' = p. Cross entropy is the mean over all pixels of -log p' of the label; Dice is the mean of
    1 - (2 sum p' y + s) / (sum p' + sum y + s), s = 1e-5, over items and their annotated classes, so that an organ
    weighs the same in whichever item it comes. With every class annotated it is MONAI's ``DiceCELoss`` of softmax and
    one-hot labels.

    Args:
        base: ``dice_ce``, the sum of both; ``dice`` or ``ce`` alone.
        include_background: whether the background, merged or not, is a class of the Dice.
        batch: sum Dice's numerator and denominator over the batch first, where a class is annotated.
        class_balance: b of the weights n_c^-b that pixels get in the cross entropy, n_c being the pixels of the batch
            that are labeled as their class: 0 counts pixels alike, 1 counts classes alike. Between, small organs are
            learned in fewer steps.

    Raises:
        ValueError: an unknown ``base``.

    References:
        Fang and Yan, Multi-organ segmentation over partially labeled datasets with multi-scale feature abstraction
        (PIPO-FAN), IEEE TMI 2020, arXiv:2001.00208. Shi et al., Marginal loss and exclusion loss for partially
        supervised multi-organ segmentation, Medical Image Analysis 2021, arXiv:2007.03868; without its exclusion loss.

    Example:
        >>> logits = torch.zeros(1, 4, 2, 2)  # a quarter for each class
        >>> label, present = torch.zeros(1, 1, 2, 2), torch.tensor([[True, True, False, False]])
        >>> loss = PartialLabelLoss(base="ce")
        >>> loss(logits, label), loss(logits, label, present)  # log 4; log 4/3
        (tensor(1.3863), tensor(0.2877))
    """

    def __init__(
        self, base: str = "dice_ce", include_background: bool = True, batch: bool = False, class_balance: float = 0.0
    ) -> None:
        super().__init__()
        if base not in BASES:
            raise ValueError(f"expected one of {', '.join(BASES)} as base, got {base!r}")
        self.base, self.include_background, self.batch = base, include_background, batch
        self.class_balance = class_balance

    def forward(self, logits: Tensor, label: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            logits: (B, K, *space), any floating type; K exclusive classes, 0 background.
            label: (B, 1, *space), classes 0 to K - 1, any type; a class that is not annotated is read as background.
            present: (B, K), not 0 where the class is annotated; the background always is. None: all are.

        Returns:
            Scalar, >= 0, differentiable in ``logits``; computed in float32 (float64 for float64 logits), also inside
            autocast.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_label_shape(logits, label, channels=1)
        if present is not None and present.shape != logits.shape[:2]:
            expected = tuple(logits.shape[:2])
            raise ValueError(
                f"present has shape {tuple(present.shape)}, expected {expected} for logits {(*logits.shape,)}"
            )
        z = logits.to(torch.promote_types(logits.dtype, torch.float32))
        classes = label.detach()[:, 0].long()
        if present is not None:
            present = present.to(device=z.device, dtype=torch.bool, copy=True)
            present[:, 0] = True
            z, classes = merged(z, classes, present)
        total = z.new_zeros(())
        if self.base != "dice":
            total = total + F.cross_entropy(z, classes, self._weights(z, classes))
        if self.base != "ce":
            total = total + self._dice(z.softmax(1), classes, present)
        return total

    def _weights(self, z: Tensor, classes: Tensor) -> Tensor | None:
        if not self.class_balance:
            return None
        pixels = torch.stack([(classes == c).sum() for c in range(z.shape[1])])
        return pixels.clamp(min=1).to(z.dtype) ** -self.class_balance

    def _dice(self, p: Tensor, classes: Tensor, present: Tensor | None) -> Tensor:
        counted = p.new_ones(p.shape[:2]) if present is None else present.to(p)
        y = F.one_hot(classes, p.shape[1]).movedim(-1, 1)
        space = list(range(2, p.ndim))
        overlap, size = (p * y).sum(space), p.sum(space) + y.sum(space)
        if self.batch:
            overlap, size = ((x * counted).sum(0, keepdim=True) for x in (overlap, size))
            counted = counted.amax(0, keepdim=True)
        losses = 1 - (2 * overlap + 1e-5) / (size + 1e-5)
        first = 0 if self.include_background else 1
        losses, counted = losses[:, first:], counted[:, first:]
        return (losses * counted).sum() / counted.sum().clamp(min=1)


def merged(logits: Tensor, classes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the classes that are not annotated into the background.

    Args:
        logits: (B, K, *space).
        classes: (B, *space), int64.
        present: (B, K) bool, the background True.

    Returns:
        Logits of the same softmax with the probabilities summed: log-sum-exp of the merged in channel 0, -inf in their
        own; and the label with 0 in their place.
    """
    absent = ~present.reshape(*present.shape, *[1] * (logits.ndim - 2))
    others = absent.clone()
    others[:, 0] = True
    background = logits.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)
    known = present.gather(1, classes.flatten(1)).view_as(classes)
    return torch.cat([background, logits.masked_fill(absent, -torch.inf)[:, 1:]], dim=1), classes * known
