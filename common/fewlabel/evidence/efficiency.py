# SPDX-License-Identifier: Apache-2.0
"""The label-efficiency factor: how many labels of the baseline one label of the method is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.evidence.statistics import Values, common_replicates

_RESAMPLES = 2000


@dataclass(frozen=True)
class Efficiency:
    """Labels the baseline needs for the method's figure, divided by the method's labels.

    A value that the baseline's curve does not reach is not extrapolated: the factor is then the bound, and ``below``
    or ``above`` says so.

    Args:
        factor: the factor, or its bound.
        low: 2.5 % quantile over resampled replicates.
        high: 97.5 % quantile.
        below: the factor is at most ``factor``: the method is under the baseline's smallest budget.
        above: the factor is at least ``factor``: the method is over the baseline's best.
        low_below: the same of ``low``.
        high_above: the same of ``high``.
    """

    factor: float
    low: float
    high: float
    below: bool
    above: bool
    low_below: bool
    high_above: bool

    def __str__(self) -> str:
        def bound(value: float, below: bool, above: bool) -> str:
            return f"{'≤ ' * below}{'≥ ' * above}{value:.2g}"

        low, high = bound(self.low, self.low_below, False), bound(self.high, False, self.high_above)
        return f"{bound(self.factor, self.below, self.above)} [{low}, {high}]"


def efficiency(
    method: Values, budget: int, baseline: Mapping[int, Values], lower_is_better: bool = False, seed: int = 0
) -> Efficiency | None:
    """Return the label-efficiency factor of a method at a budget, with its bootstrap interval.

    The baseline's mean figure is interpolated linearly over the logarithm of the budget; of the budgets at which it
    reaches the method's mean, the smallest counts. Replicates are drawn with replacement, the same ones for the
    method and for every budget of the baseline, which keeps the pairing.

    Args:
        method: metric by replicate.
        budget: the method's labels.
        baseline: metric by replicate, by budget; at least two budgets.
        lower_is_better: direction of the metric.
        seed: of the resampling.

    Returns:
        The factor, or None when the baseline has fewer than two budgets or there is no common replicate.
    """
    budgets = sorted(baseline)
    common = common_replicates([method, *(baseline[b] for b in budgets)])
    if len(budgets) < 2 or not common:
        return None
    sign = -1.0 if lower_is_better else 1.0
    ours = sign * np.array([method[r] for r in common])
    theirs = sign * np.array([[baseline[b][r] for r in common] for b in budgets])
    factor, below, above = _factor(ours.mean(), theirs.mean(axis=1), budgets, budget)
    drawn = np.random.default_rng(seed).integers(len(common), size=(_RESAMPLES, len(common)))
    factors = np.array([_factor(ours[d].mean(), theirs[:, d].mean(axis=1), budgets, budget)[0] for d in drawn])
    low, high = (float(q) for q in np.quantile(factors, (0.025, 0.975), method="nearest"))
    smallest, largest = budgets[0] / budget, budgets[-1] / budget
    return Efficiency(factor, low, high, below, above, low <= smallest, high >= largest)


def _factor(figure: float, curve: np.ndarray, budgets: Sequence[int], budget: int) -> tuple[float, bool, bool]:
    """Return the factor, and whether it is only a bound from above or from below."""
    if figure <= curve[0]:
        return budgets[0] / budget, bool(figure < curve[0]), False
    for i in range(1, len(budgets)):
        if figure <= curve[i]:
            share = (figure - curve[i - 1]) / (curve[i] - curve[i - 1])
            labels = math.exp((1 - share) * math.log(budgets[i - 1]) + share * math.log(budgets[i]))
            return labels / budget, False, False
    return budgets[-1] / budget, False, True
