# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fewlabel.evidence import paired, summarize
from fewlabel.evidence.statistics import Values, values

REPLICATES = [(fold, draw) for fold in "AB" for draw in range(3)]


def of(numbers: list[float]) -> Values:
    return dict(zip(REPLICATES, numbers, strict=False))


def test_the_interval_is_scipy_s() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.6, 0.1, 6), generator.normal(0.5, 0.1, 6)
    found = paired(of(ours.tolist()), of(theirs.tolist()))
    oracle = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.sd == pytest.approx((ours - theirs).std(ddof=1))
    assert found.better == int((ours > theirs).sum())
    assert found.by_fold == pytest.approx({"A": (ours - theirs)[:3].mean(), "B": (ours - theirs)[3:].mean()})


@pytest.mark.parametrize(
    ("differences", "lower_is_better", "verdict"),
    [
        ([0.1, 0.11, 0.09, 0.1, 0.1, 0.12], False, "wins"),
        ([0.1, 0.11, 0.09, 0.1, 0.1, 0.12], True, "loses"),
        ([-0.1, -0.11, -0.09, -0.1, -0.1, -0.12], False, "loses"),
        ([-0.1, -0.11, -0.09, -0.1, -0.1, -0.12], True, "wins"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, 0.0], False, "not resolved"),
        ([0.3], False, "not resolved"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(
    differences: list[float], lower_is_better: bool, verdict: str
) -> None:
    found = paired(of([0.5 + d for d in differences]), of([0.5] * 6), lower_is_better)
    assert found is not None and found.verdict == verdict


def test_only_common_replicates_are_compared() -> None:
    variant, baseline = of([0.6, 0.7, 0.8]), {("A", 1): 0.5, ("C", 0): 0.9}
    found = paired(variant, baseline)
    assert found is not None
    assert (found.count, found.by_fold) == (1, {"A": pytest.approx(0.2)})
    assert math.isnan(found.sd) and math.isnan(found.low)
    assert paired(variant, {("C", 0): 0.9}) is None


def test_equal_figures_are_not_better() -> None:
    found = paired(of([0.5] * 6), of([0.5] * 6))
    assert found is not None and found.better == 0 and found.verdict == "not resolved"


def test_summary_of_one_has_no_spread() -> None:
    assert math.isnan(summarize([0.5]).sd)
    assert summarize([1.0, 3.0]).sd == pytest.approx(math.sqrt(2))


def test_rows_without_the_metric_are_left_out() -> None:
    rows = [{"variant": "a", "label_budget": "8", "fold": "A", "draw": str(i), "x": x} for i, x in enumerate("1 ")]
    rows[1]["x"] = ""
    assert values(rows, "x") == {("a", 8): {("A", 0): 1.0}}
