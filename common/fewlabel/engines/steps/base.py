# SPDX-License-Identifier: Apache-2.0
"""What every training step is: one batch of streams in, one loss by its terms out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewlabel.errors import ConfigError
from fewlabel.losses import sigmoid_ramp_up
from fewlabel.networks import Twin
from fewlabel.networks.statistics import kept_statistics

LabeledStreams = Literal["single", "halves", "independent"]
Batch = Mapping[str, Any]


class TrainingStep(nn.Module, ABC):
    """Compute all loss terms of one iteration of a method.

    A step holds the network that inference will use and whatever only training needs (heads, the number of iterations
    done); its state dict, restored, repeats the uninterrupted run. It runs under autocast and inside
    ``DistributedDataParallel``: parameters that get no gradient have ``requires_grad`` False.

    A batch is ``{"labeled": [batch, ...], "unlabeled": batch}``; each inner batch has ``"image"`` (B, C, H, W)
    float32 and, when labeled, ``"label"`` (B, L, H, W), whatever the loss compares logits with. Where labels are
    partial, ``"labels_present"`` (B, K) says which classes they tell.

    Attributes:
        labeled_streams: what the loader delivers under ``"labeled"``: ``"single"``, one batch; ``"halves"``, one
            from each half of the labeled items; ``"independent"``, two drawn independently from all of them.
        iteration: optimizer steps seen, kept in the state dict.

    Args:
        network: what inference uses.
    """

    labeled_streams: LabeledStreams = "single"
    iteration: Tensor
    network: Any  # as specific as the method

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss": total, term: value, ...}``, all scalars; terms come without their weights.

        Args:
            batch: see the class.
        """

    def after_step(self, iteration: int) -> None:
        """Do what follows an optimizer step; the trainer calls it.

        Args:
            iteration: the trainer's, counted from 1.
        """
        self.iteration.fill_(iteration)

    def ramp(self, length: int) -> Tensor:
        """Return the weight of a term that fades in over ``length`` iterations."""
        return sigmoid_ramp_up(self.iteration, length)


class TwinStep(TrainingStep):
    """Train a pair of networks on labels, with whatever else a method asks of them.

    Args:
        network: the pair of networks.
        loss: supervised loss, called as ``loss(logits, label)``.
        statistics: ``"labeled"``: the running statistics of BatchNorm, by which inference normalizes, are those of
            labeled images; ``"all"``: unlabeled images, as strongly as they are augmented, move them too.

    Raises:
        ConfigError: when ``statistics`` is neither.
    """

    network: Twin

    def __init__(self, network: Twin, loss: nn.Module, statistics: str = "labeled") -> None:
        super().__init__(network)
        if statistics not in ("labeled", "all"):
            raise ConfigError(f"batchnorm_statistics '{statistics}' is neither labeled nor all")
        self.loss = loss
        self.statistics = statistics

    def _on_unlabeled(self) -> AbstractContextManager[None]:
        """The block in which unlabeled images pass through the networks."""
        return kept_statistics(self.network) if self.statistics == "labeled" else nullcontext()

    def _require_two_networks(self) -> None:
        if self.network.tied:
            raise ConfigError(f"{type(self).__name__} needs two networks: set tied of network_def to false")


def labeled_pairs(batch: Batch, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return (image, label) of each labeled stream.

    Args:
        batch: see :class:`TrainingStep`.
        count: how many streams the step needs.

    Returns:
        ``count`` pairs of plain tensors.

    Raises:
        ValueError: when the batch has another number of streams.
    """
    return [(plain(s["image"]), plain(s["label"])) for s in labeled_batches(batch, count)]


def labeled_batches(batch: Batch, count: int) -> list[Batch]:
    """Return the batch of each labeled stream.

    Args:
        batch: see :class:`TrainingStep`.
        count: how many streams the step needs.

    Raises:
        ValueError: when the batch has another number of streams.
    """
    streams: list[Batch] = batch.get("labeled", [])
    if len(streams) != count:
        raise ValueError(f"the batch has {len(streams)} labeled streams, expected {count}: check labeled_streams")
    return streams


def labeled_images(batch: Batch) -> Tensor:
    """Return the images of the first labeled stream, whether labels came along or not.

    Args:
        batch: see :class:`TrainingStep`.

    Returns:
        (B, C, H, W), a plain tensor.
    """
    return plain(batch["labeled"][0]["image"])


def unlabeled_images(batch: Batch) -> Tensor:
    """Return the images of the unlabeled stream.

    Args:
        batch: see :class:`TrainingStep`.

    Returns:
        (B, C, H, W), a plain tensor.

    Raises:
        ConfigError: when there is no such stream.
    """
    if batch.get("unlabeled") is None:
        raise ConfigError("this method needs unlabeled images: give the data loader an unlabeled data set")
    return plain(batch["unlabeled"]["image"])


def plain(tensor: Tensor) -> Tensor:
    """Drop metadata subclasses, which slow every operation down.

    Args:
        tensor: a tensor or MONAI's ``MetaTensor``.
    """
    return tensor.as_subclass(torch.Tensor)
