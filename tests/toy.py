# SPDX-License-Identifier: Apache-2.0
"""A step module and a loader small enough to train in milliseconds, with dropout and BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabel.engines import StreamTrainer


class ToyStep(nn.Module):
    """Regression with dropout: the smallest thing whose randomness, buffers and terms must survive a resume."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.steps: list[int] = []

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        error = (self.network(batch["x"]) - batch["y"]).square().mean()
        return {"loss": error + 0.0, "error": error}

    def after_step(self, iteration: int) -> None:
        self.steps.append(iteration)


class ToyLoader:
    """Batches that are a function of (epoch, iteration)."""

    def __init__(self, epoch_length: int = 3) -> None:
        self.epoch_length, self.epoch = epoch_length, 0

    def __len__(self) -> int:
        return self.epoch_length

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for i in range(self.epoch_length):
            x = torch.from_numpy(np.random.default_rng([self.epoch, i]).normal(size=(6, 4))).float()
            yield {"x": x, "y": x.sum(1, keepdim=True)}


def toy_trainer(handlers: Any = (), max_epochs: int = 4, **options: Any) -> StreamTrainer:
    """Return a trainer of an equally initialized toy; ``handlers(step, optimizer, scheduler)`` makes its handlers."""
    torch.manual_seed(0)
    step = ToyStep()
    optimizer = torch.optim.Adam(step.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: max(0, 1 - epoch / max_epochs) ** 0.9)
    made = handlers(step, optimizer, scheduler) if callable(handlers) else list(handlers)
    return StreamTrainer("cpu", max_epochs, ToyLoader(), step, optimizer, train_handlers=made, **options)
