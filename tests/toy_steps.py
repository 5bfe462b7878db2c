# SPDX-License-Identifier: Apache-2.0
"""Networks, batches and a short training, small enough for tests of the training steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewlabel.engines.steps import TrainingStep
from fewlabel.losses import StructureLoss
from fewlabel.networks import Twin

Batch = dict[str, Any]


def tiny(dropout: float = 0.0) -> nn.Module:
    """A segmentation network of two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(dropout),
        nn.Conv2d(8, 1, 3, padding=1),
    )


def twin(seed: int = 0, **options: Any) -> Twin:
    torch.manual_seed(seed)
    return Twin(tiny, **options)


def step(kind: type[TrainingStep], tied: bool = False, dropout: float = 0.0, **options: Any) -> Any:
    """A step of a kind over two tiny networks, the same at every call."""
    return kind(network=twin(tied=tied, dropout=dropout), loss=StructureLoss(window=5), **options)


def images(seed: int, count: int = 2) -> tuple[Tensor, Tensor]:
    """Noise with a bright square, and the mask of the square."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, 32, 32)
    for m in mask:
        y, x = torch.randint(0, 16, (2,), generator=generator)
        m[:, y : y + 14, x : x + 14] = 1
    return mask + 0.5 * torch.randn(count, 3, 32, 32, generator=generator), mask


def batch(streams: int, seed: int = 0, unlabeled: bool = True) -> Batch:
    made: Batch = {
        "labeled": [dict(zip(("image", "label"), images(10 * seed + i), strict=True)) for i in range(streams)]
    }
    if unlabeled:
        made["unlabeled"] = {"image": images(10 * seed + 9)[0]}
    return made


def train(step: TrainingStep, streams: int, iterations: int, start: int = 1, adam: bool = False) -> list[float]:
    """Train as the trainer does, from iteration ``start``; return the total losses."""
    parameters = [p for p in step.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02) if adam else torch.optim.SGD(parameters, lr=0.01)
    losses = []
    for i in range(start, start + iterations):
        torch.manual_seed(i)
        loss = step.train()(batch(streams, seed=i))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step.after_step(i)
        losses.append(loss.item())
    return losses


def reached(module: nn.Module) -> bool:
    """Whether all parameters got a gradient that is not zero everywhere, False if none did; mixed is an error."""
    found = {bool(p.grad is not None and p.grad.abs().sum() > 0) for p in module.parameters()}
    assert len(found) == 1, "some parameters got a gradient and some did not"
    return found.pop()
