# SPDX-License-Identifier: Apache-2.0
"""Cross pseudo supervision: two networks that learn each other's hard predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TwinStep, labeled_pairs, unlabeled_images
from fewlabel.losses import CrossPseudoLoss
from fewlabel.networks import Twin


class CrossPseudoSupervisionStep(TwinStep):
    """Train both networks on the same labels and on each other's masks.

    Args:
        network: two networks, not tied; they start apart, which is what makes them disagree.
        loss: called as ``loss(logits, mask)``, for labels and for pseudo labels.
        pseudo_weight: weight of the ``pseudo`` term; 0 switches it off. The paper takes 1.5 on Cityscapes.
        ramp_up: iterations over which it fades in; 0, as the paper, has none.
        labeled_too: ask for agreement on the labeled images as well, as the paper does.
        statistics: see :class:`TwinStep`.

    Raises:
        ConfigError: when the networks are tied.

    References:
        Chen et al., Semi-supervised semantic segmentation with cross pseudo supervision, CVPR 2021, arXiv:2106.01226.
        The paper's loss is the cross entropy; ours is the supervised loss of the bundle.
    """

    labeled_streams = "single"

    def __init__(
        self,
        network: Twin,
        loss: nn.Module,
        pseudo_weight: float = 1.5,
        ramp_up: int = 0,
        labeled_too: bool = True,
        statistics: str = "labeled",
    ) -> None:
        super().__init__(network, loss, statistics)
        self._require_two_networks()
        self.pseudo = CrossPseudoLoss(loss)
        self.pseudo_weight = pseudo_weight
        self.ramp_up = ramp_up
        self.labeled_too = labeled_too

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, ``supervised`` and, with a weight, ``pseudo``; see :class:`TrainingStep`."""
        first, second = self.network.first, self.network.second
        ((image, label),) = labeled_pairs(batch, 1)
        z1, z2 = first(image), second(image)
        supervised: Tensor = self.loss(z1, label) + self.loss(z2, label)
        if self.pseudo_weight == 0:
            return {"loss": supervised, "supervised": supervised}
        images = unlabeled_images(batch)
        with self._on_unlabeled():
            a1, a2 = first(images), second(images)
        if self.labeled_too:
            a1, a2 = torch.cat([z1, a1]), torch.cat([z2, a2])
        pseudo = self.pseudo(a1, a2)
        return {
            "loss": supervised + self.pseudo_weight * self.ramp(self.ramp_up) * pseudo,
            "supervised": supervised,
            "pseudo": pseudo,
        }
