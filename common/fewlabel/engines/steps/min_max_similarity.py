# SPDX-License-Identifier: Apache-2.0
"""Min-Max Similarity: two networks on disjoint halves of the labels, contrasted on labeled and unlabeled images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TwinStep, labeled_pairs, unlabeled_images
from fewlabel.errors import ConfigError
from fewlabel.losses import MinMaxSimilarityLoss
from fewlabel.networks import Twin


class MinMaxSimilarityStep(TwinStep):
    """Feed each network its half of the labels, both the same unlabeled images, and compare what they say.

    Args:
        network: two networks, not tied.
        loss: supervised loss, used for the similarity of predictions too; called as ``loss(logits, target)`` with
            targets in [0, 1].
        ramp_up: iterations over which all terms but the supervised one fade in; 0, as the paper, has none.
        joint_batch: pass labeled and unlabeled images through a network together. Faster, but BatchNorm then mixes
            the statistics of the two, which the paper's separate passes do not.
        statistics: see :class:`TwinStep`; a joint batch cannot keep labeled ones apart.
        **options: the weights, the temperature and all else of :class:`fewlabel.losses.MinMaxSimilarityLoss`.

    Raises:
        ConfigError: when the networks are tied, or by the loss.

    References:
        Lou et al., Min-Max Similarity, IEEE TMI 2023, arXiv:2203.15177, Algorithm 1.
    """

    labeled_streams = "halves"

    def __init__(
        self,
        network: Twin,
        loss: nn.Module,
        ramp_up: int = 0,
        joint_batch: bool = False,
        statistics: str = "labeled",
        **options: Any,
    ) -> None:
        super().__init__(network, loss, statistics)
        self._require_two_networks()
        if joint_batch and statistics == "labeled":
            raise ConfigError("a joint_batch mixes the statistics of BatchNorm: set batchnorm_statistics to all")
        self.criterion = MinMaxSimilarityLoss(loss, **options)
        self.ramp_up = ramp_up
        self.joint_batch = joint_batch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and the terms with a weight: ``supervised``, ``negatives``, ``similarity``, ``pixels``."""
        reads_labeled = self.criterion.uses("supervised", "negatives")
        reads_unlabeled = self.criterion.uses("similarity", "pixels")
        (x1, y1), (x2, y2) = labeled_pairs(batch, 2)
        images = unlabeled_images(batch) if reads_unlabeled else None
        z1, a1 = self._logits(self.network.first, x1 if reads_labeled else None, images)
        z2, a2 = self._logits(self.network.second, x2 if reads_labeled else None, images)
        return self.criterion(
            labeled=None if z1 is None or z2 is None else (z1, z2),
            labels=(y1, y2),
            unlabeled=None if a1 is None or a2 is None else (a1, a2),
            ramp=self.ramp(self.ramp_up) if self.ramp_up else 1.0,
        )

    def _logits(self, network: nn.Module, x: Tensor | None, u: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Run a network on those of the two inputs that are there, together or one after the other."""
        if self.joint_batch and x is not None and u is not None:
            z, a = network(torch.cat([x, u])).split([len(x), len(u)])
            return z, a
        z = None if x is None else network(x)
        with self._on_unlabeled():
            return z, (None if u is None else network(u))
