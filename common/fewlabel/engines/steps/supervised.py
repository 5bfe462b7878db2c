# SPDX-License-Identifier: Apache-2.0
"""Plain supervision: the baseline of every comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TwinStep, labeled_batches, plain
from fewlabel.networks import Twin


class SupervisedStep(TwinStep):
    """Train on labels only: one network, or two that never hear of each other.

    A tied :class:`~fewlabel.networks.Twin` is one network on one labeled stream. An untied one is two networks, each
    on a stream of its own over all labels, whose mean prediction is an ensemble of two.

    Args:
        network: tied or not.
        loss: called as ``loss(logits, label)``, or as ``loss(logits, label, present)`` where the batch has
            ``labels_present`` (:class:`~fewlabel.losses.PartialLabelLoss`).
    """

    def __init__(self, network: Twin, loss: nn.Module) -> None:
        super().__init__(network, loss)
        self.labeled_streams = "single" if network.tied else "independent"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and the term ``supervised``, summed over the networks; see :class:`TrainingStep`."""
        networks = [self.network.first] if self.network.tied else [self.network.first, self.network.second]
        streams = labeled_batches(batch, len(networks))
        losses = [self._loss(n, stream) for n, stream in zip(networks, streams, strict=True)]
        supervised = torch.stack(losses).sum()
        return {"loss": supervised, "supervised": supervised}

    def _loss(self, network: nn.Module, stream: Batch) -> Tensor:
        present = [plain(stream["labels_present"])] if "labels_present" in stream else []
        loss: Tensor = self.loss(network(plain(stream["image"])), plain(stream["label"]), *present)
        return loss
