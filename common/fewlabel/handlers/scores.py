# SPDX-License-Identifier: Apache-2.0
"""``metrics.json`` and ``metrics_per_case.csv``: what an evaluation found, and on which list."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from monai.utils import string_list_all_gather
from torch import Tensor

from fewlabel.files import atomic, write_json


class ScoresHandler:
    """Write the metrics of an evaluator, over all cases and case by case.

    ``metrics.json`` holds ``{"list": ..., "cases": n, "settings": {...}, "metrics": {name: value}}``;
    ``metrics_per_case.csv`` one row a case, columns named as the metrics.

    Args:
        output_dir: folder of the two files.
        list_name: which list was read (``test`` or ``validation``).
        settings: what the figures depend on (threshold, member, checkpoint), written beside them.
        columns: names of the per-case columns of metrics with several, by metric; others use the metric's name.
        data_root: folder that file names are made relative to; None or empty takes the one that all cases share.
    """

    def __init__(
        self,
        output_dir: str | Path,
        list_name: str,
        settings: dict[str, Any] | None = None,
        columns: dict[str, list[str]] | None = None,
        data_root: str | Path | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.list_name, self.settings = list_name, settings or {}
        self.columns = columns or {}
        self.data_root = Path(data_root).absolute() if data_root else None
        self._names: list[str] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _open(self, engine: Workflow) -> None:
        self._names = []

    def _add(self, engine: Workflow) -> None:
        self._names += [str(item["image"].meta["filename_or_obj"]) for item in engine.state.batch]

    def _write(self, engine: Workflow) -> None:
        files = string_list_all_gather(self._names)  # rank after rank, as the metrics' own details
        if idist.get_rank() != 0:
            return
        first = {file: row for row, file in reversed([*enumerate(files)])}
        rows = sorted(first.values())  # each case once, also where the list is so short that all processes saw it
        names = _relative([files[row] for row in rows], self.data_root)
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        write_json(
            self.output_dir / "metrics.json",
            {"list": self.list_name, "cases": len(names), "settings": self.settings, "metrics": metrics},
        )
        columns = self._case_columns(engine.state.metric_details)
        table = {"case": names} | {name: [column[row] for row in rows] for name, column in columns.items()}
        file = self.output_dir / "metrics_per_case.csv"
        with atomic(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        print_scores(metrics, self.list_name, len(names))

    def _case_columns(self, details: dict[str, Tensor]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for metric, values in details.items():
            rows = values.reshape(values.shape[0], -1).tolist()
            width = len(rows[0]) if rows else 1
            names = self.columns.get(metric) or [metric if width == 1 else f"{metric}_{i}" for i in range(width)]
            found |= {name: [f"{row[i]:.6g}" for row in rows] for i, name in enumerate(names)}
        return found


def _relative(files: list[str], root: Path | None) -> list[str]:
    """Name files from the data root; outside of it, or without one, from the folder that all of them share."""
    if root is None or not all(Path(file).is_relative_to(root) for file in files):
        root = Path(os.path.commonpath([str(Path(file).parent) for file in files])) if files else Path()
    return [Path(file).relative_to(root).as_posix() for file in files]


def print_scores(metrics: dict[str, float], list_name: str, cases: int) -> None:
    """Print one line a metric, in the words of ``metrics.json``."""
    print(f"{cases} cases of the {list_name} list")  # noqa: T201 - what the command is for
    for name, value in metrics.items():
        print(f"  {name:<24}{value:.4f}")  # noqa: T201
