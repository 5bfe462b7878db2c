# SPDX-License-Identifier: Apache-2.0
"""A run folder, read: what was run, how it went, what was found. Whatever is not there yet is empty."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fewlabel.errors import ConfigError

Curve = tuple[list[int], list[float]]
_NO_CURVES = ("epoch", "iteration", "seconds")


@dataclass(frozen=True)
class CaseTable:
    """``metrics_per_case.csv``, a value a case in every column.

    Args:
        names: the cases.
        groups: group of each case (its video, its patient); empty when the evaluation did not say.
        columns: numbers by name of the column, NaN where a case has none.
    """

    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    columns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        folder: the folder.
        record: ``run.json``.
        split: ``split.json``.
        history: rows of ``history.csv``.
        metrics: ``metrics.json``.
        cases: ``metrics_per_case.csv``.
        examples: ``examples/index.json``.
        stages: ``examples/stages/index.json``, of methods that run in stages.
    """

    folder: Path
    record: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, str]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cases: CaseTable = field(default_factory=CaseTable)
    examples: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The keys that a user may change, in the order of the config, with expressions worked out."""
        resolved, config = self.record.get("keys", {}), self.record.get("config", {})
        names = list(config)[: list(config).index("package")] if "package" in config else list(resolved)
        return {name: resolved.get(name, config.get(name)) for name in names if name != "imports"}

    @property
    def is_baseline(self) -> bool:
        """Whether the run is known to be plain supervision, ``method_enabled: false``."""
        return self.keys.get("method_enabled") is False

    @property
    def title(self) -> str:
        """Name of the bundle; of a record without one, of the folder."""
        return str(self.record.get("bundle") or self.folder.name)

    @property
    def method(self) -> str:
        """What trained: the method by the name of its step, or plain supervision."""
        if self.is_baseline:
            return "plain supervision"
        step = self.record.get("config", {}).get("train", {}).get("method", {})
        target = step.get("_target_", "") if isinstance(step, Mapping) else ""
        return _words(target.rpartition(".")[2].removesuffix("Step"))

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs that are done, and that were asked for."""
        done = max((int(row["epoch"]) for row in self.history), default=0)
        return done, int(self.keys.get("max_epochs") or done)

    @property
    def seconds(self) -> float:
        """Seconds of all epochs, validation included; of a run that was stopped and resumed, of all its parts."""
        return sum(_number(row.get("seconds", "")) for row in self.history)

    def curves(self) -> tuple[dict[str, Curve], dict[str, Curve]]:
        """Return the curves of training (``loss``, its terms, ``lr``) and of the metrics, (epochs, values) by name."""
        names = list(self.history[0]) if self.history else []
        end = names.index("lr") if "lr" in names else len(names)
        known = self.metrics.get("metrics", {})
        curves = {name: self._curve(name) for name in names if name not in _NO_CURVES}
        training = [n for n in names[:end] if n in curves and n not in known] + (["lr"] if "lr" in curves else [])
        return {n: curves[n] for n in training}, {n: c for n, c in curves.items() if n not in training and c[0]}

    def _curve(self, name: str) -> Curve:
        points = [(int(row["epoch"]), _number(row.get(name, ""))) for row in self.history if row.get(name)]
        return [epoch for epoch, _ in points], [value for _, value in points]

    @property
    def key_metric(self) -> str:
        """The metric that cases are ranked by; of an evaluation that did not say, the first. Empty without one."""
        return str(self.metrics.get("key_metric") or next(iter(self.metrics.get("metrics", {})), ""))

    @property
    def higher_is_better(self) -> bool:
        """The direction of the key metric."""
        return self.metrics.get("better", "higher") == "higher"

    def scores(self) -> tuple[float, ...]:
        """Return the key metric of each case; the mean over classes where it has several columns."""
        names = self.metrics.get("columns", {}).get(self.key_metric, [self.key_metric])
        columns = [self.cases.columns[name] for name in names if name in self.cases.columns]
        return tuple(mean_sd(row)[0] for row in zip(*columns, strict=True))

    def missing(self) -> list[str]:
        """Return one sentence for each part that the folder does not hold, with what would bring it."""
        done, wanted = self.epochs
        found = []
        if not self.record:
            found.append("No run.json: nothing is known of the training, only of its evaluation.")
        elif not self.split:
            found.append("No split.json: the training list was put in from outside.")
        if not self.history:
            found.append("No history.csv: no epoch of a training has ended in this folder.")
        elif done < wanted:
            found.append(f"{done} of {wanted} epochs are done: the training still runs, or was stopped.")
        if not self.metrics:
            found.append("No metrics.json: the run has not been evaluated yet. Give the run id evaluating.")
        elif not self.examples:
            found.append("No examples/index.json: the evaluation kept no pictures.")
        return found


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Args:
        folder: the ``output_dir`` of a training, of an evaluation, or of both.

    Raises:
        ConfigError: when it holds none of the files, or a file that cannot be read.
    """
    folder = Path(folder)
    run = Run(
        folder,
        record=read_json(folder / "run.json"),
        split=read_json(folder / "split.json"),
        history=_rows(folder / "history.csv"),
        metrics=(metrics := read_json(folder / "metrics.json")),
        cases=_cases(folder / "metrics_per_case.csv", metrics.get("group_key")),
        examples=read_json(folder / "examples" / "index.json"),
        stages=read_json(folder / "examples" / "stages" / "index.json"),
    )
    if not (run.record or run.history or run.metrics):
        raise ConfigError(
            f"'{folder}' is no run folder: it holds none of run.json, history.csv, metrics.json; "
            "give the output_dir of a run"
        )
    return run


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation of the values that are numbers; NaN where there are too few.

    Example:
        >>> mean_sd([1.0, 3.0, math.nan])
        (2.0, 1.4142135623730951)
    """
    finite = [value for value in values if not math.isnan(value)]
    mean = statistics.fmean(finite) if finite else math.nan
    spread = statistics.stdev(finite) if len(finite) > 1 and all(map(math.isfinite, finite)) else math.nan
    return mean, spread


def read_json(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds, nothing when there is none.

    Args:
        file: the file.

    Raises:
        ConfigError: when it cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigError(f"'{file}' cannot be read ({error}): repair or remove it") from None


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _cases(file: Path, group_key: str | None) -> CaseTable:
    rows = _rows(file)
    if not rows:
        return CaseTable()
    columns = [name for name in rows[0] if name not in ("case", group_key)]
    return CaseTable(
        names=tuple(row["case"] for row in rows),
        groups=tuple(row[group_key] for row in rows) if group_key in rows[0] else (),
        columns={name: tuple(_number(row[name]) for row in rows) for name in columns},
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _words(name: str) -> str:
    """``MinMaxSimilarity`` as words."""
    spaced = "".join(f" {c.lower()}" if c.isupper() and i else c for i, c in enumerate(name))
    return spaced[:1].lower() + spaced[1:] if spaced else "the method"
