# SPDX-License-Identifier: Apache-2.0
"""Plain supervision: the baseline of every comparison."""

from __future__ import annotations

from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TwinStep, labeled_pairs
from fewlabel.networks import Twin


class SupervisedStep(TwinStep):
    """Train on labels only: one network, or two that never hear of each other.

    A tied :class:`~fewlabel.networks.Twin` is one network on one labeled stream. An untied one is two networks, each
    on a stream of its own over all labels, whose mean prediction is an ensemble of two.

    Args:
        network: tied or not.
        loss: called as ``loss(logits, label)``.
    """

    def __init__(self, network: Twin, loss: nn.Module) -> None:
        super().__init__(network, loss)
        self.labeled_streams = "single" if network.tied else "independent"

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and the term ``supervised``, summed over the networks; see :class:`TrainingStep`."""
        networks = [self.network.first] if self.network.tied else [self.network.first, self.network.second]
        pairs = labeled_pairs(batch, len(networks))
        supervised: Tensor = sum(self.loss(n(image), label) for n, (image, label) in zip(networks, pairs, strict=True))
        return {"loss": supervised, "supervised": supervised}
