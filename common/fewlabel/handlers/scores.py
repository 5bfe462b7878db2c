# SPDX-License-Identifier: Apache-2.0
"""``metrics.json`` and ``metrics_per_case.csv``: what an evaluation found, and on which list."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from monai.utils import string_list_all_gather
from torch import Tensor

from fewlabel.files import atomic, write_json
from fewlabel.handlers._cases import file_of, gather_cases


class ScoresHandler:
    """Write the metrics of an evaluator, over all cases and case by case.

    ``metrics.json`` holds ``{"list": ..., "cases": n, "settings": {...}, "key_metric": name, "better": "higher" or
    "lower", "group_key": ..., "columns": {metric: [...]}, "metrics": {name: value}}``; ``metrics_per_case.csv`` one row
    a case: its name, its group where items have one, and the columns of each metric.

    Args:
        output_dir: folder of the two files.
        list_name: which list was read (``test`` or ``validation``).
        settings: what the figures depend on (threshold, member, checkpoint), written beside them.
        columns: names of the per-case columns of metrics with several, by metric; others use the metric's name.
        data_root: folder that file names are made relative to; None or empty takes the one that all cases share.
        group_key: key of the items that says which cases belong together (a video, a patient): cases of one group are
            no independent samples, and whoever reads the table must be able to see that. None writes no such column.
    """

    def __init__(
        self,
        output_dir: str | Path,
        list_name: str,
        settings: dict[str, Any] | None = None,
        columns: dict[str, list[str]] | None = None,
        data_root: str | Path | None = None,
        group_key: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.list_name, self.settings = list_name, settings or {}
        self.columns = columns or {}
        self.data_root, self.group_key = data_root, group_key
        self._files: list[str] = []
        self._groups: list[str] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _open(self, engine: Workflow) -> None:
        self._files, self._groups = [], []

    def _add(self, engine: Workflow) -> None:
        self._files += [file_of(item) for item in engine.state.batch]
        if self.group_key is not None:
            self._groups += [_word(item.get(self.group_key, "")) for item in engine.state.batch]

    def _write(self, engine: Workflow) -> None:
        cases = gather_cases(self._files, self.data_root)
        groups = string_list_all_gather(self._groups) if self.group_key is not None else []
        if idist.get_rank() != 0:
            return
        columns = self._case_columns(engine.state.metric_details)
        table = {"case": cases.names}
        if self.group_key is not None and any(groups):
            table[self.group_key] = [groups[row] for row in cases.rows]
        for part in columns.values():
            table |= {name: [values[row] for row in cases.rows] for name, values in part.items()}
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        found = {
            "list": self.list_name,
            "cases": len(cases.names),
            "settings": self.settings,
            **_key_metric(engine),
            "group_key": self.group_key if self.group_key in table else None,
            "columns": {metric: list(part) for metric, part in columns.items()},
            "metrics": metrics,
        }
        write_json(self.output_dir / "metrics.json", found)
        file = self.output_dir / "metrics_per_case.csv"
        with atomic(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        print_scores(metrics, self.list_name, len(cases.names))

    def _case_columns(self, details: dict[str, Tensor]) -> dict[str, dict[str, list[str]]]:
        """The columns of each metric by name, a value for each row of its details."""
        found: dict[str, dict[str, list[str]]] = {}
        for metric, values in details.items():
            rows = values.reshape(values.shape[0], -1).tolist()
            width = len(rows[0]) if rows else 1
            names = self.columns.get(metric) or [metric if width == 1 else f"{metric}_{i}" for i in range(width)]
            found[metric] = {name: [f"{row[i]:.6g}" for row in rows] for i, name in enumerate(names)}
        return found


def _word(value: Any) -> str:
    return str(value.item() if isinstance(value, Tensor) else value)  # numbers come out of a loader as tensors


def _key_metric(engine: Workflow) -> dict[str, Any]:
    """Which metric ranks the cases, and in which direction; nothing where an engine has none."""
    name = getattr(engine.state, "key_metric_name", None)
    if name is None:
        return {}
    return {"key_metric": name, "better": "higher" if engine.metric_cmp_fn(1.0, 0.0) else "lower"}


def print_scores(metrics: dict[str, float], list_name: str, cases: int) -> None:
    """Print one line a metric, in the words of ``metrics.json``."""
    print(f"{cases} cases of the {list_name} list")  # noqa: T201 - what the command is for
    for name, value in metrics.items():
        print(f"  {name:<24}{value:.4f}")  # noqa: T201
