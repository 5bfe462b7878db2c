# SPDX-License-Identifier: Apache-2.0
"""One progress bar for a whole run, with the time that is left."""

from __future__ import annotations

import sys
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from tqdm import tqdm


class ProgressHandler:
    """Show iterations of all epochs, elapsed and remaining time, the loss and the newest validation metric.

    A resumed run starts where it left off. Without a terminal (logs, CI) a line is printed every half minute.

    Args:
        description: words before the bar; None hides the bar.
        evaluator: where the newest key metric is read from; None shows no metric.
    """

    def __init__(self, description: str | None = "training", evaluator: Workflow | None = None) -> None:
        self.description = description
        self.evaluator = evaluator
        self._bar: Any = None

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer or evaluator; only rank 0 shows a bar."""
        if self.description is None or idist.get_rank() != 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._interrupt)

    def _open(self, engine: Workflow) -> None:
        if self._bar is not None:
            return
        state = engine.state
        # An evaluator counts epochs in step with its trainer, but runs only the one.
        trains = hasattr(engine, "optimizer")
        self._bar = tqdm(
            total=state.epoch_length * (state.max_epochs if trains else 1),
            initial=state.iteration if trains else 0,
            desc=self.description,
            unit="it",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30.0,
        )

    def _advance(self, engine: Workflow) -> None:
        bar = self._bar
        due = bar.n + 1 - bar.last_print_n >= bar.miniters  # reading the loss waits for the device: only when shown
        if due and hasattr(engine, "optimizer"):
            bar.set_postfix(self._postfix(engine), refresh=False)
        bar.update()

    def _postfix(self, engine: Workflow) -> dict[str, str]:
        shown = {"epoch": f"{engine.state.epoch}/{engine.state.max_epochs}"}
        shown["loss"] = f"{float(engine.state.output[0]['loss']):.4f}"
        state = self.evaluator.state if self.evaluator is not None else None
        if state is not None and state.key_metric_name in state.metrics:
            shown[str(state.key_metric_name)] = f"{state.metrics[state.key_metric_name]:.4f}"
        return shown

    def _close(self, engine: Workflow) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _interrupt(self, engine: Workflow, error: BaseException) -> None:
        self._close(engine)
        raise error
