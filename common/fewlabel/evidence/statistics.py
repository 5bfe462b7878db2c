# SPDX-License-Identifier: Apache-2.0
"""Means, spreads and paired differences over replicates."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from fewlabel.evidence.rows import Row, run_of

Replicate = tuple[str, int]
Values = dict[Replicate, float]


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over replicates.

    Args:
        count: replicates.
        mean: in the metric's unit.
        sd: sample standard deviation; NaN for one replicate.
    """

    count: int
    mean: float
    sd: float


@dataclass(frozen=True)
class Paired:
    """Difference of a variant and the baseline on the replicates that both have.

    Args:
        count: common replicates.
        mean: mean difference, variant minus baseline.
        sd: sample standard deviation of the differences; NaN for one replicate.
        low: lower end of the 95 % t-interval of the mean; NaN for one replicate.
        high: its upper end.
        better: replicates on which the variant is strictly better.
        by_fold: mean difference in each fold.
        lower_is_better: direction of the metric.
    """

    count: int
    mean: float
    sd: float
    low: float
    high: float
    better: int
    by_fold: Mapping[str, float]
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """``wins`` or ``loses`` where the interval excludes zero, else ``not resolved``."""
        above, below = self.low > 0, self.high < 0
        if not (above or below):
            return "not resolved"
        return "wins" if above != self.lower_is_better else "loses"


def values(rows: Iterable[Row], metric: str) -> dict[tuple[str, int], Values]:
    """Return the metric of every replicate, by (variant, budget), in the order of the rows.

    Args:
        rows: of :func:`~fewlabel.evidence.read_rows`.
        metric: a column.
    """
    found: dict[tuple[str, int], Values] = defaultdict(dict)
    for row in rows:
        if row.get(metric):
            run = run_of(row)
            found[run.variant, run.label_budget][run.replicate] = float(row[metric])
    return dict(found)


def summarize(numbers: Iterable[float]) -> Summary:
    """Return mean and standard deviation.

    Args:
        numbers: one a replicate, at least one.
    """
    listed = list(numbers)
    return Summary(len(listed), statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else math.nan)


def paired(variant: Values, baseline: Values, lower_is_better: bool = False) -> Paired | None:
    """Compare a variant with the baseline on common replicates.

    Args:
        variant: metric by replicate.
        baseline: the same of the baseline.
        lower_is_better: direction of the metric.

    Returns:
        The comparison, or None without a common replicate. The interval treats replicates as independent; those of
        one fold share the images that are scored, so it speaks for these folds and is too narrow for others, which
        is what ``by_fold`` lets one see.
    """
    common = sorted(variant.keys() & baseline.keys())
    if not common:
        return None
    differences = {replicate: variant[replicate] - baseline[replicate] for replicate in common}
    summary = summarize(differences.values())
    half = math.nan
    if summary.count > 1:
        half = float(student.ppf(0.975, summary.count - 1)) * summary.sd / math.sqrt(summary.count)
    sign = -1.0 if lower_is_better else 1.0
    return Paired(
        count=summary.count,
        mean=summary.mean,
        sd=summary.sd,
        low=summary.mean - half,
        high=summary.mean + half,
        better=sum(sign * difference > 0 for difference in differences.values()),
        by_fold=_by_fold(differences),
        lower_is_better=lower_is_better,
    )


def _by_fold(differences: Mapping[Replicate, float]) -> dict[str, float]:
    folds: dict[str, list[float]] = defaultdict(list)
    for (fold, _), difference in differences.items():
        folds[fold].append(difference)
    return {fold: statistics.fmean(found) for fold, found in folds.items()}


def common_replicates(several: Sequence[Values]) -> list[Replicate]:
    """Return the replicates that all of several variants or budgets have, sorted."""
    keys = [set(found) for found in several]
    return sorted(set.intersection(*keys)) if keys else []
