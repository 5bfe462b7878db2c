# SPDX-License-Identifier: Apache-2.0
"""Open the folders of a run: keep what was there, write down what is about to run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
from ignite.engine import Engine, Events

from fewlabel.files import move_aside, write_json

logger = logging.getLogger(__name__)

_WEIGHTS = ("model.pt", "model.safetensors", "resume")
_RECORDS = ("run.json", "split.json", "history.csv")
_FIGURES = ("metrics.json", "metrics_per_case.csv", "examples", "report.html")


class _Split(Protocol):
    def as_dict(self) -> dict[str, Any]: ...


class RunFolderHandler:
    """Prepare ``ckpt_dir`` and ``output_dir`` when training starts; stands last among the handlers.

    Last, so that whatever refuses to start (weights that do not fit, a damaged state) has spoken before anything is
    moved or written.

    A run that does not resume finds its folders empty: weights and records of an earlier run move to ``previous/<n>``
    beside them, nothing is deleted. A run that trains on keeps its records, but the figures of the weights that it is
    about to change move there too. Then ``run.json`` (command, config, versions, commit, machine) and ``split.json``
    (which items carried labels) are written.

    Args:
        output_dir: folder of the records.
        ckpt_dir: folder of the weights; ``resume/last.pt`` in it is what a run resumes from.
        record: content of ``run.json``.
        splits: the split in use, written to ``split.json``; None writes none.
        resume: ``"auto"`` or ``"never"``.
        own_data: False when the training list was put in from outside (MONAI Label): the weights in use stay where
            they are, because :class:`~fewlabel.handlers.CheckpointHandler` replaces them only by better ones.
    """

    def __init__(
        self,
        output_dir: str | Path,
        ckpt_dir: str | Path,
        record: dict[str, Any],
        splits: _Split | None = None,
        resume: str = "auto",
        own_data: bool = True,
    ) -> None:
        self.output_dir, self.ckpt_dir = Path(output_dir), Path(ckpt_dir)
        self.record, self.splits = record, splits
        self.resume, self.own_data = resume, own_data

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)

    def started(self, engine: Engine) -> None:
        """Move an earlier run aside and write the records."""
        idist.barrier()  # every process has read the weights that it starts from
        if idist.get_rank() == 0:
            resumes = self._resumes()
            if not resumes or engine.state.epoch < engine.state.max_epochs:
                self._move_aside(resumes)
            write_json(self.output_dir / "run.json", self.record)
            if self.splits is not None and self.own_data:
                write_json(self.output_dir / "split.json", self.splits.as_dict())
        idist.barrier()

    def _resumes(self) -> bool:
        return self.own_data and self.resume == "auto" and (self.ckpt_dir / "resume" / "last.pt").is_file()

    def _move_aside(self, resumes: bool) -> None:
        weights = () if resumes or not self.own_data else _WEIGHTS
        records = _FIGURES if resumes else _RECORDS + _FIGURES
        for folder, names in ((self.ckpt_dir, weights), (self.output_dir, records)):
            kept = move_aside(folder, names)
            if kept is not None:
                logger.info("an earlier run was kept in %s", kept)
