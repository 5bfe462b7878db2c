# SPDX-License-Identifier: Apache-2.0
"""A run beside its baseline, case by case: which folder that is, and what the difference is."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fewlabel.errors import ConfigError
from fewlabel.report.run import Run, mean_sd, read_json, read_run

# Keys in which a run and its baseline may differ and still be a pair.
_PLACES = "bundle_root dataset_dir datalist output_dir ckpt_dir".split()
_EXPECTED = frozenset([*_PLACES, *"method_enabled device amp num_workers cache_rate resume".split()])
logger = logging.getLogger(__name__)


class Figure(NamedTuple):
    """A metric of both runs.

    Args:
        name: the metric.
        run: its value in the run.
        baseline: its value in the baseline.
    """

    name: str
    run: float
    baseline: float

    @property
    def difference(self) -> float:
        """Run minus baseline."""
        return self.run - self.baseline


class Unit(NamedTuple):
    """The key metric over the cases of one group.

    Args:
        name: the group.
        cases: how many cases of it both runs scored.
        run: mean of the run.
        baseline: mean of the baseline.
    """

    name: str
    cases: int
    run: float
    baseline: float

    @property
    def difference(self) -> float:
        """Run minus baseline."""
        return self.run - self.baseline


@dataclass(frozen=True)
class Comparison:
    """A run and its baseline on the same cases.

    Args:
        run: the run.
        baseline: the baseline.
        figures: every metric that both have, over all cases.
        cases: the cases that both have.
        differences: key metric of the run minus that of the baseline, a value a case.
        units: means by group; empty when cases have no group.
        differing: keys other than places and machinery in which the two differ, with both values.
        others: further folders that would do as a baseline.
        alone: cases that only one of the two has; they are left out.
        automatic: whether the baseline was found, not named.
    """

    run: Run
    baseline: Run
    figures: tuple[Figure, ...]
    cases: tuple[str, ...]
    differences: tuple[float, ...]
    units: tuple[Unit, ...] = ()
    differing: Mapping[str, tuple[Any, Any]] | None = None
    others: tuple[Path, ...] = ()
    alone: int = 0
    automatic: bool = False

    @property
    def mean_sd(self) -> tuple[float, float]:
        """Mean and standard deviation of the differences over cases."""
        return mean_sd(self.differences)

    @property
    def better_worse_equal(self) -> tuple[int, int, int]:
        """In how many cases the run is better, worse, and equal to six digits."""
        sign = 1 if self.run.higher_is_better else -1
        signs = [0 if abs(d) < 1e-6 else math.copysign(1, sign * d) for d in self.differences if not math.isnan(d)]
        return signs.count(1), signs.count(-1), signs.count(0)


def compare(run: Run, baseline: Run, others: Sequence[Run] = (), automatic: bool = False) -> Comparison:
    """Compare two evaluated runs on the cases that both scored.

    Args:
        run: the run.
        baseline: the run to compare with.
        others: further baselines, which are only named.
        automatic: whether the baseline was found, not named.

    Raises:
        ConfigError: when they were evaluated on different lists, by different metrics, or have no case in common.
    """
    for part in (run, baseline):
        if not part.cases.names:
            raise ConfigError(f"'{part.folder}' holds no figures to compare: evaluate it first")
    ours, theirs = (dict(zip(part.cases.names, part.scores(), strict=True)) for part in (run, baseline))
    shared = [name for name in run.cases.names if name in theirs]
    if run.key_metric != baseline.key_metric or not shared:
        raise ConfigError(
            f"'{baseline.folder}' is no baseline of '{run.folder}': {run.key_metric} on {len(ours)} cases of the "
            f"{run.metrics.get('list')} list, {baseline.key_metric} on {len(theirs)} cases of the "
            f"{baseline.metrics.get('list')} list, {len(shared)} cases in common"
        )
    found = baseline.metrics["metrics"]
    return Comparison(
        run,
        baseline,
        figures=tuple(Figure(n, float(v), float(found[n])) for n, v in run.metrics["metrics"].items() if n in found),
        cases=tuple(shared),
        differences=tuple(ours[name] - theirs[name] for name in shared),
        units=_units(run, ours, theirs),
        differing=differing_keys(run, baseline),
        others=tuple(other.folder for other in others),
        alone=len({*ours} ^ {*theirs}),
        automatic=automatic,
    )


def _units(run: Run, ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[Unit, ...]:
    members: dict[str, list[str]] = {}
    for name, group in zip(run.cases.names, run.cases.groups, strict=False):
        if name in theirs:
            members.setdefault(group, []).append(name)
    return tuple(
        Unit(group, len(names), *(mean_sd([scores[name] for name in names])[0] for scores in (ours, theirs)))
        for group, names in sorted(members.items())
    )


def find_baselines(run: Run) -> list[Run]:
    """Return the runs beside a run that are a fair baseline of it, the most alike and then the newest first.

    Fair means: ``method_enabled`` is false, the split is the same (data list, budget, draw, held-out groups: every
    labeled and validation item), and the same list was evaluated, case by case.

    Args:
        run: an evaluated run; other folders of the folder that it lies in are looked at.
    """
    if not (run.split and run.cases.names) or run.is_baseline:
        return []
    found = [other for other in _beside(run.folder.resolve()) if _same_data(run, other)]
    found.sort(key=lambda other: str(other.record.get("started", "")), reverse=True)
    return sorted(found, key=lambda other: len(differing_keys(run, other)))


def _beside(place: Path) -> Iterator[Run]:
    """Baselines beside a folder; of all others no more than the record is read, for a sweep has hundreds."""
    for file in sorted(place.parent.glob("*/run.json")):
        if file.parent == place:
            continue
        try:
            if Run(file.parent, record=read_json(file)).is_baseline:
                yield read_run(file.parent)
        except ConfigError as error:  # somebody else's folder; it must not stop this report
            logger.warning("%s was not looked at as a baseline: %s", file.parent, error.message)


def _same_data(run: Run, other: Run) -> bool:
    lists = [part.metrics.get("list") for part in (run, other)]
    return run.split == other.split and lists[0] == lists[1] and {*run.cases.names} == {*other.cases.names}


def differing_keys(run: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two runs differ, but for places, machinery and ``method_enabled``, with both values.

    Args:
        run: one run.
        other: the other.
    """
    names = [name for name in {**run.keys, **other.keys} if name not in _EXPECTED]
    pairs = {name: (run.keys.get(name), other.keys.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
