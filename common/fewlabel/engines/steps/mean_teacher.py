# SPDX-License-Identifier: Apache-2.0
"""Mean Teacher: a student that agrees with the moving average of itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TwinStep, labeled_pairs, unlabeled_images
from fewlabel.errors import ConfigError
from fewlabel.losses import ProbabilityMSELoss
from fewlabel.networks import MovingAverage, Twin, ramped_decay


class MeanTeacherStep(TwinStep):
    """Train ``first`` on all labels and towards the probabilities of ``second``, its moving average, elsewhere.

    The teacher starts as a copy of the student and never receives a gradient. The student sees the unlabeled images
    with Gaussian noise, the teacher without; both have dropout, where the network has it.

    Args:
        network: two networks, not tied; ``second`` is overwritten.
        loss: supervised loss, called as ``loss(logits, label)``.
        consistency_weight: weight of the ``consistency`` term once it has faded in; 0 switches it off.
        ramp_up: iterations over which it fades in; 0 has none. A quarter of the run is usual.
        ema_decay: share of the teacher's old weights kept at each step; ramped, see
            :func:`fewlabel.networks.ramped_decay`.
        noise: standard deviation of the noise, in units of the normalized image, clipped at twice that.
        teacher_mode: ``"train"``, as published: the teacher normalizes by the statistics of the batch, drops out, and
            keeps the running statistics of its own passes where ``statistics`` is ``"all"``; ``"eval"``: it uses the
            moving average of the student's running statistics.
        statistics: see :class:`TwinStep`; with ``"labeled"`` the teacher's are the moving average of the student's.

    Raises:
        ConfigError: when the networks are tied or an option is out of range.

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780. Theirs is image
        classification; for segmentation, consistency is asked of unlabeled images only, as is common (Yu et al.,
        UA-MT, MICCAI 2019, arXiv:1907.07034), and noise is clipped as there.
    """

    labeled_streams = "single"

    def __init__(
        self,
        network: Twin,
        loss: nn.Module,
        consistency_weight: float = 1.0,
        ramp_up: int = 1000,
        ema_decay: float = 0.99,
        noise: float = 0.1,
        teacher_mode: str = "train",
        statistics: str = "labeled",
    ) -> None:
        super().__init__(network, loss, statistics)
        self._require_two_networks()
        if not 0.0 <= ema_decay < 1.0:
            raise ConfigError(f"ema_decay is {ema_decay}: give a share from 0 to below 1")
        if teacher_mode not in ("train", "eval"):
            raise ConfigError(f"teacher_mode '{teacher_mode}' is neither train nor eval")
        self.consistency = ProbabilityMSELoss()
        self.consistency_weight = consistency_weight
        self.ramp_up = ramp_up
        self.ema_decay = ema_decay
        self.noise = noise
        self.teacher_mode = teacher_mode
        network.second.load_state_dict(network.first.state_dict())
        network.second.requires_grad_(False)
        follows = teacher_mode == "eval" or statistics == "labeled"
        self._average = MovingAverage(network.second, network.first, buffers=follows)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, ``supervised`` and, with a weight, ``consistency``; see :class:`TrainingStep`."""
        ((image, label),) = labeled_pairs(batch, 1)
        supervised: Tensor = self.loss(self.network.first(image), label)
        if self.consistency_weight == 0:
            return {"loss": supervised, "supervised": supervised}
        images = unlabeled_images(batch)
        with self._on_unlabeled():
            with torch.no_grad():
                target = self.network.second(images)
            consistency = self.consistency(self.network.first(self._noisy(images)), target)
        total = supervised + self.consistency_weight * self.ramp(self.ramp_up) * consistency
        return {"loss": total, "supervised": supervised, "consistency": consistency}

    def after_step(self, iteration: int) -> None:
        """Let the teacher follow the student.

        Args:
            iteration: the trainer's, counted from 1.
        """
        super().after_step(iteration)
        self._average.update(ramped_decay(iteration, self.ema_decay))

    def train(self, mode: bool = True) -> MeanTeacherStep:
        """Set the mode of all parts; the teacher's by ``teacher_mode``.

        Args:
            mode: True for training.

        Returns:
            This module.
        """
        super().train(mode)
        self.network.second.train(mode and self.teacher_mode == "train")
        return self

    def _noisy(self, images: Tensor) -> Tensor:
        if self.noise == 0:
            return images
        return images + (self.noise * torch.randn_like(images)).clamp(-2 * self.noise, 2 * self.noise)
