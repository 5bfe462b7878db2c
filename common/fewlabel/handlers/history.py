# SPDX-License-Identifier: Apache-2.0
"""``history.csv``: every loss term and every validation metric, epoch by epoch."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from torch import Tensor

from fewlabel.errors import ConfigError
from fewlabel.files import atomic


class HistoryHandler:
    """Average the loss terms over an epoch, add the newest validation metrics, write ``history.csv``.

    Stands after validation and before :class:`~fewlabel.handlers.CheckpointHandler`: a loss that is not finite stops
    the run here, before good weights are replaced. A resumed run drops the rows that it is about to repeat.

    Columns: ``epoch, iteration``, the loss terms, ``lr, seconds``, the metrics. Empty where an epoch has none.

    Args:
        output_dir: folder of ``history.csv``.
        evaluator: its metrics become columns in the epochs in which it ran.
    """

    def __init__(self, output_dir: str | Path, evaluator: Workflow | None = None) -> None:
        self.file = Path(output_dir) / "history.csv"
        self.evaluator = evaluator
        self._rows: list[dict[str, str]] | None = None
        self._sums: dict[str, Tensor] = {}
        self._began = 0.0
        self._rate = 0.0

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _open(self, engine: Workflow) -> None:
        if self._rows is None:
            self._rows = [row for row in self._read() if int(row["epoch"]) < engine.state.epoch]
        self._sums, self._began = {}, time.perf_counter()
        self._rate = engine.optimizer.param_groups[0]["lr"]  # of this epoch: a scheduler steps before _write

    def _read(self) -> list[dict[str, str]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def _add(self, engine: Workflow) -> None:
        # Summed on the device: reading a value at every step would wait for it.
        for name, term in engine.state.output[0].items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term.clone()

    def _write(self, engine: Workflow) -> None:
        state = engine.state
        means = {name: float(total) / state.epoch_length for name, total in self._sums.items()}
        row: dict[str, str] = {"epoch": str(state.epoch), "iteration": str(state.iteration)}
        row |= {name: f"{value:.6g}" for name, value in means.items()}
        row["lr"] = f"{self._rate:.6g}"
        row["seconds"] = f"{time.perf_counter() - self._began:.2f}"
        row |= self._validation(state.epoch)
        assert self._rows is not None
        self._rows.append(row)
        if idist.get_rank() == 0:
            self._save()
        _check_finite(means, state.epoch)

    def _validation(self, epoch: int) -> dict[str, str]:
        if self.evaluator is None or self.evaluator.state.epoch != epoch:
            return {}
        return {name: f"{float(value):.6g}" for name, value in self.evaluator.state.metrics.items()}

    def _save(self) -> None:
        assert self._rows is not None
        columns = _columns(self._rows)
        with atomic(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(self._rows)


def _columns(rows: list[dict[str, str]]) -> list[str]:
    """All columns; a term that some epochs lack stays before ``lr``, where a reader looks for terms."""
    before = dict.fromkeys(name for row in rows for name in list(row)[: list(row).index("lr")])
    return list(before | dict.fromkeys(name for row in rows for name in row))


def _check_finite(means: dict[str, float], epoch: int) -> None:
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise ConfigError(
            f"the loss is not finite in epoch {epoch} ({', '.join(bad)}): lower the learning_rate or switch amp off; "
            "the weights of the epoch before are kept"
        )
