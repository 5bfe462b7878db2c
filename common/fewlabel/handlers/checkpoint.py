# SPDX-License-Identifier: Apache-2.0
"""Weights that inference uses, and the state that an exact resume needs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import Workflow
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fewlabel.errors import ConfigError
from fewlabel.files import atomic, write_json
from fewlabel.networks.weights import UNREADABLE, load_weights

logger = logging.getLogger(__name__)

FORMAT = 1


class CheckpointHandler:
    """Save after every epoch, resume exactly; stands after validation, scheduler and history.

    Written atomically by rank 0, tensors and plain containers only, so that everything loads with
    ``weights_only=True``:

    - ``model.pt`` and ``model.safetensors``: the plain state dict of ``network``, exactly what inference uses;
    - ``resume/last.pt``: step module, optimizer, scheduler, gradient scaler, epoch, best metric;
    - ``resume/config.json``: the identity of the run, by which a foreign ``ckpt_dir`` is refused.

    Randomness is not stored: data and steps derive it from (seed, epoch, iteration, item). A run that was killed
    therefore repeats at most the epoch it was in, and ends with the weights of an uninterrupted run, bit for bit.

    Args:
        ckpt_dir: folder of the weights.
        network: what inference uses; never wrapped.
        module: the step module that holds the network and all training-only parts; never wrapped.
        optimizer: the optimizer.
        lr_scheduler: the scheduler, if any. One that is a function of the step (``LambdaLR``, and MONAI's warm-up
            schedules) follows the number of epochs of now when a run goes on; others go on as they were saved.
        evaluator: validates during training; its key metric decides where ``select`` or ``own_data`` ask for it.
        identity: :func:`fewlabel.bundle.identity` of the run.
        resume: ``"auto"`` continues ``resume/last.pt`` when it is there; ``"never"`` starts over.
        select: ``"last"`` keeps the newest weights in ``model.pt``, ``"best"`` those of the best validation metric.
        own_data: False when the training list was put in from outside (MONAI Label's fine-tuning): nothing is
            resumed, and ``model.pt`` is replaced only by weights with a better key metric than its own.
        init_checkpoint: weights to start from when nothing is resumed; empty or None starts from scratch.
        interval: epochs between two saves of ``resume/last.pt``.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        evaluator: Workflow | None = None,
        identity: dict[str, Any] | None = None,
        resume: str = "auto",
        select: str = "last",
        own_data: bool = True,
        init_checkpoint: str | Path | None = None,
        interval: int = 1,
    ) -> None:
        if resume not in ("auto", "never"):
            raise ConfigError(f"resume '{resume}' is neither auto nor never")
        if select not in ("last", "best"):
            raise ConfigError(f"select_model '{select}' is neither last nor best")
        self.ckpt_dir = Path(ckpt_dir)
        self.network, self.module, self.optimizer = network, module, optimizer
        self.lr_scheduler, self.evaluator = lr_scheduler, evaluator
        self.identity = identity or {}
        self.resume, self.select, self.own_data = resume, select, own_data
        self.init_checkpoint, self.interval = init_checkpoint, interval
        self._to_beat: float | None = None

    @property
    def last(self) -> Path:
        """The file that a resume reads."""
        return self.ckpt_dir / "resume" / "last.pt"

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Workflow) -> None:
        """Resume, or load the weights to start from."""
        if not self.own_data:
            self._score_present_model(engine)
        elif self.resume == "auto" and self.last.is_file():
            return self._load(engine)
        if self.init_checkpoint:
            load_weights(self.network, self.init_checkpoint, key="init_checkpoint")
        return None

    def epoch_completed(self, engine: Workflow) -> None:
        """Save weights and state; the weights first, so that the state is never ahead of them."""
        if idist.get_rank() == 0:
            if self._is_wanted(engine.state.epoch):
                self._save_model()
            epoch, end = engine.state.epoch, engine.state.max_epochs
            if self.own_data and (epoch % self.interval == 0 or epoch == end):
                self._save(engine)

    def completed(self, engine: Workflow) -> None:
        """Say what has become of the model that was in use."""
        if self.evaluator is None or self._to_beat is None:
            return
        state = self.evaluator.state
        if self._beats_present_model(self.evaluator):
            logger.info(
                "epoch %d scores %.4f: it has replaced the model in use", state.best_metric_epoch, state.best_metric
            )
        else:
            logger.info("the model in use stays: no epoch has scored better")

    def _is_wanted(self, epoch: int) -> bool:
        if self.evaluator is None or (self.own_data and self.select == "last"):
            return True
        if self._to_beat is None and not _has_metric(self.evaluator):
            return True
        return self.evaluator.state.best_metric_epoch == epoch and self._beats_present_model(self.evaluator)

    def _beats_present_model(self, evaluator: Workflow) -> bool:
        if self._to_beat is None:
            return True
        return _has_metric(evaluator) and bool(evaluator.metric_cmp_fn(evaluator.state.best_metric, self._to_beat))

    def _save_model(self) -> None:
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        with atomic(self.ckpt_dir / "model.pt") as temporary:
            torch.save(weights, temporary)
        with atomic(self.ckpt_dir / "model.safetensors") as temporary:
            save_file({k: v.clone() for k, v in weights.items()}, temporary)  # tied networks share storage
            temporary.chmod((self.ckpt_dir / "model.pt").stat().st_mode)  # safetensors keeps its files private

    def _save(self, engine: Workflow) -> None:
        best = (
            (self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch) if self.evaluator else (-1, -1)
        )
        state = {
            "format": FORMAT,
            "epoch": engine.state.epoch,
            "epoch_length": engine.state.epoch_length,
            "best_metric": float(best[0]),
            "best_metric_epoch": int(best[1]),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None,
            "scaler": engine.scaler.state_dict() if engine.scaler is not None else None,
        }
        write_json(self.ckpt_dir / "resume" / "config.json", self.identity)
        with atomic(self.last) as temporary:
            torch.save(state, temporary)

    def _load(self, engine: Workflow) -> None:
        try:
            state = torch.load(self.last, map_location=engine.state.device, weights_only=True)
        except UNREADABLE:
            raise ConfigError(
                f"'{self.last}' is damaged or holds more than tensors: start over with --resume never"
            ) from None
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None:
            _go_on(self.lr_scheduler, state["lr_scheduler"])
        if engine.scaler is not None and state["scaler"] is not None:
            engine.scaler.load_state_dict(state["scaler"])
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info("%s: finished; raise max_epochs to train on, --resume never starts over", self.last)
        else:
            logger.info("resuming after epoch %d of %d", engine.state.epoch, engine.state.max_epochs)

    def _score_present_model(self, engine: Workflow) -> None:
        """Measure the model that is in use, so that fine-tuning can only improve on it."""
        file = self.ckpt_dir / "model.pt"
        if self.evaluator is None or not file.is_file():
            return
        begin = {k: v.clone() for k, v in self.network.state_dict().items()}
        load_weights(self.network, file, key="ckpt_dir", strict=True)
        self.evaluator.run()
        if _has_metric(self.evaluator):
            self._to_beat = self.evaluator.state.best_metric
            logger.info("the model in use scores %.4f; only a better one replaces it", self._to_beat)
        state = self.evaluator.state
        state.epoch, state.best_metric, state.best_metric_epoch = 0, -1, -1  # no epoch of this run has been scored
        self.network.load_state_dict(begin)


def _has_metric(evaluator: Workflow) -> bool:
    return bool(evaluator.state.best_metric_epoch != -1)


def _go_on(scheduler: LRScheduler, saved: dict[str, Any]) -> None:
    """Take up a schedule where it was left.

    A rate that is a function of the step follows the function of this run, which may have more epochs than that which
    was saved: the saved one may be 0 already.
    """
    if not isinstance(scheduler, LambdaLR):
        scheduler.load_state_dict(saved)
        return
    scheduler.load_state_dict(scheduler.state_dict() | {key: saved[key] for key in ("last_epoch", "_step_count")})
    parts = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, base, factor in parts:
        group["lr"] = base * factor(scheduler.last_epoch)
