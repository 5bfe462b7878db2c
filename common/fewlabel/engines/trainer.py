# SPDX-License-Identifier: Apache-2.0
"""The trainer of all label-scarce methods: labeled and unlabeled streams in, one loss by terms out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Events
from ignite.utils import convert_tensor
from monai.engines import Trainer
from torch import Tensor, nn

from fewlabel.errors import ConfigError


class StreamSource(Protocol):
    """What the trainer draws from: :class:`fewlabel.data.StreamLoader`, or anything that looks like it."""

    def __len__(self) -> int:
        """Return the iterations of an epoch."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches of the current epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 1) whose batches the next iteration yields."""


class StreamTrainer(Trainer):
    """Train a step module (see :class:`fewlabel.engines.TrainingStep`) on batches of several streams.

    One call of ``module(batch)`` makes every loss term, whatever the method: two networks, teacher and student, or
    plain supervision. The trainer owns what all of them share: device, mixed precision, gradient accumulation,
    distributed training (wrap ``module`` in ``DistributedDataParallel``), and randomness that depends on nothing but
    (seed, iteration, rank), so that a resumed run repeats an uninterrupted one exactly.

    ``state.output`` is a list with one dictionary ``{"loss": ..., term: ...}`` of detached scalars, the form that
    MONAI's ``from_engine(["loss"], first=True)`` reads.

    Args:
        device: where the module lives and batches go; a word such as ``"cpu"`` works too.
        max_epochs: epochs in all.
        train_data_loader: has ``__len__`` (iterations per epoch) and ``set_epoch(epoch)``.
        module: the step module, or that module wrapped for distributed training.
        optimizer: over the parameters of the module.
        train_handlers: MONAI or ignite handlers with ``attach``.
        amp: mixed precision on CUDA devices; ignored on the CPU.
        accumulation_steps: batches whose gradients are averaged before the optimizer steps.
        seed: root of all randomness during the steps (dropout, noise).

    Raises:
        ConfigError: when ``accumulation_steps`` does not divide the iterations of an epoch, because a checkpoint
            between accumulated batches would lose gradients.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: StreamSource,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        train_handlers: Sequence[Any] | None = None,
        amp: bool = False,
        accumulation_steps: int = 1,
        seed: int = 0,
    ) -> None:
        epoch_length = len(train_data_loader)
        if accumulation_steps < 1 or epoch_length % accumulation_steps:
            raise ConfigError(
                f"epoch_length {epoch_length} is not a multiple of accumulation_steps {accumulation_steps}: change one"
            )
        self.module = module
        self.optimizer = optimizer
        self.accumulation_steps = accumulation_steps
        self.seed = seed
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            amp=amp and torch.device(device).type == "cuda",
            decollate=False,
        )
        # Before any handler of the user's: the loader knows the epoch, and the step's randomness is set.
        self.add_event_handler(Events.EPOCH_STARTED, _set_epoch)
        self.add_event_handler(Events.ITERATION_STARTED, _seed_iteration)
        self._register_handlers(train_handlers or [])

    def run(self) -> None:
        """Train from the current state to ``max_epochs``."""
        self.scaler = torch.amp.GradScaler("cuda") if self.amp else None
        super(Trainer, self).run()

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> list[dict[str, Tensor]]:
        batch = convert_tensor(batchdata, device=self.state.device, non_blocking=True)
        steps = self.state.iteration % self.accumulation_steps == 0
        self.module.train()
        with self._synchronized(steps):
            with torch.autocast(self.state.device.type, enabled=self.amp):
                terms = self.module(batch)
            loss = terms["loss"] / self.accumulation_steps
            (self.scaler.scale(loss) if self.scaler is not None else loss).backward()
        if steps:
            self._step()
        return [{name: term.detach() for name, term in terms.items()}]

    def _step(self) -> None:
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        step: Any = getattr(self.module, "module", self.module)  # inside DistributedDataParallel
        step.after_step(self.state.iteration)

    def _synchronized(self, steps: bool) -> AbstractContextManager[Any]:
        """Exchange gradients between processes only on the batch after which the optimizer steps."""
        module: Any = self.module
        return nullcontext() if steps or not hasattr(module, "no_sync") else module.no_sync()


def _set_epoch(engine: StreamTrainer) -> None:
    engine.data_loader.set_epoch(engine.state.epoch)
    engine.set_data(engine.data_loader)  # fresh iterators: no batch is carried over from the epoch before


def _seed_iteration(engine: StreamTrainer) -> None:
    """Seed after the batch was fetched, so that the number of workers changes nothing."""
    sequence = np.random.SeedSequence([engine.seed, engine.state.iteration, engine.state.rank])
    seed = int(sequence.generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party transforms draw from the global generator
    random.seed(seed)
