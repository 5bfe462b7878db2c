# SPDX-License-Identifier: Apache-2.0
"""Proxy tasks: train a score without labels, so that shallow layers answer to what images are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TrainingStep, labeled_images
from fewlabel.errors import ConfigError
from fewlabel.networks import ScoreNetwork

TASKS = ("similarity", "contrastive", "rotation", "simsiam", "mean_value")


class ProxyTaskStep(TrainingStep):
    r"""Train a network's score F on images alone, read from the first labeled stream.

    With R the rotation by 180 degrees, sg the stopped gradient, and means over the images of a batch (and the scores
    of an image, where there are several), ``task`` is one of

    - ``"similarity"``: \|F(x) - F(R x)\|;
    - ``"contrastive"``: max(0, (F(R a) - F(a))^2 - (F(n) - F(a))^2 + margin), each of the two squares averaged, where
      n is the last image of the batch and a the others;
    - ``"rotation"``: (F(rotated x) - q)^2, q the number of quarter turns, 0 to 3, drawn for each image;
    - ``"simsiam"``: the mean of \|P F(x) - sg F(R x)\| and \|P F(R x) - sg F(x)\|, with a linear predictor P;
    - ``"mean_value"``: \|F(x) - mean of x\|.

    Both views of a batch pass through the network together, so that they share the statistics of BatchNorm.

    Nothing keeps ``similarity`` and ``simsiam`` from a constant score, so each step also reports ``score_mean`` and
    ``score_std``, mean and standard deviation of the scores over the batch: a standard deviation that falls to 0 is a
    collapse.

    Args:
        network: gives (B, K) scores.
        task: one of the above.
        margin: of ``contrastive``.
        input_scale: what images in [0, 1] are multiplied with. The released code trains on 0 to 255 and then reads
            maps from images in [0, 1].
        train_heads: False is the released code's ``simsiam``: two fixed random linear heads of one output, P1 and P2,
            \|P2 F(x) - sg P1 F(R x)\|.

    Raises:
        ConfigError: when ``task`` is unknown.

    Note:
        One image is a batch too, except for ``contrastive``, and the released code trains ``similarity`` on such; two
        or more are better for BatchNorm, and without them ``score_std`` is 0. The released ``rotation`` compares all
        1000 outputs of the classifier with q: give the network 1000 ``outputs``.

    References:
        Chen et al., Exploring unsupervised cell recognition with prior self-activation maps, MICCAI 2023,
        arXiv:2308.11144, and the authors' code; SimSiam: Chen and He, CVPR 2021, arXiv:2011.10566, with the absolute
        difference in place of the cosine. Quarter turns drawn image by image and the shared pass are ours.
    """

    labeled_streams = "single"
    network: ScoreNetwork

    def __init__(
        self,
        network: ScoreNetwork,
        task: str = "similarity",
        margin: float = 10.0,
        input_scale: float = 1.0,
        train_heads: bool = True,
    ) -> None:
        super().__init__(network)
        if task not in TASKS:
            raise ConfigError(f"task '{task}' is none of {', '.join(TASKS)}")
        self.task = task
        self.margin = margin
        self.input_scale = input_scale
        if task == "simsiam":
            count = network.outputs
            self.predictor = nn.Linear(count, count if train_heads else 1).requires_grad_(train_heads)
            self.projector = nn.Identity() if train_heads else nn.Linear(count, 1).requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, the same by the name of the task, ``score_mean`` and ``score_std``; see the class."""
        images = labeled_images(batch) * self.input_scale
        match self.task:
            case "similarity":
                scores, turned = self._two_views(images)
                loss = (scores - turned).abs().mean()
            case "contrastive":
                scores, loss = self._contrastive(images)
            case "rotation":
                scores, loss = self._rotation(images)
            case "simsiam":
                scores, turned = self._two_views(images)
                loss = (self._prediction_error(scores, turned) + self._prediction_error(turned, scores)) / 2
            case _:
                scores = _wide(self.network(images))
                loss = (scores - images.mean((1, 2, 3))[:, None]).abs().mean()
        kept = scores.detach()
        spread = kept.std(dim=0, correction=0).mean()
        return {"loss": loss, self.task: loss, "score_mean": kept.mean(), "score_std": spread}

    def _two_views(self, images: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores of the images, and of the first ``count`` of them turned by 180 degrees."""
        turned = images[:count].flip(-2, -1)
        scores = _wide(self.network(torch.cat([images, turned])))
        return scores[: len(images)], scores[len(images) :]

    def _contrastive(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) < 2:
            raise ConfigError("batch_size is 1: the task contrastive needs at least 2 images")
        scores, turned = self._two_views(images, count=-1)
        anchors, negative = scores[:-1], scores[-1:]
        distances = (turned - anchors).square().mean() - (negative - anchors).square().mean()
        return scores, (distances + self.margin).clamp(min=0)

    def _rotation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-2] != images.shape[-1]:
            raise ConfigError(
                f"images are {images.shape[-2]} x {images.shape[-1]}: the task rotation needs square ones, so crop them"
            )
        quarters = torch.randint(4, (len(images),))  # on the CPU: rot90 wants numbers
        turned = torch.stack([torch.rot90(x, q, (-2, -1)) for x, q in zip(images, quarters.tolist(), strict=True)])
        scores = _wide(self.network(turned))
        return scores, (scores - quarters.to(scores)[:, None]).square().mean()

    def _prediction_error(self, view: Tensor, other: Tensor) -> Tensor:
        return (_wide(self.predictor(view)) - _wide(self.projector(other.detach()))).abs().mean()


def _wide(x: Tensor) -> Tensor:
    """At least float32, whatever autocast made of it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
