# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fewlabel.evidence import Efficiency, efficiency
from fewlabel.evidence.statistics import Values

REPLICATES = [(fold, draw) for fold in "ABC" for draw in range(3)]


def flat(value: float, spread: float = 0.0, seed: int = 0) -> Values:
    noise = np.random.default_rng(seed).normal(0, spread, len(REPLICATES)) if spread else np.zeros(len(REPLICATES))
    return dict(zip(REPLICATES, (value + noise - noise.mean()).tolist(), strict=True))


BASELINE = {4: flat(0.4), 8: flat(0.5), 16: flat(0.6)}


@pytest.mark.parametrize(
    ("figure", "budget", "factor"),
    [(0.5, 4, 2.0), (0.6, 4, 4.0), (0.5, 8, 1.0), (0.45, 8, 2**-0.5), (0.55, 4, 2 * 2**0.5), (0.4, 16, 0.25)],
)
def test_interpolation_on_the_logarithm(figure: float, budget: int, factor: float) -> None:
    found = efficiency(flat(figure), budget, BASELINE)
    assert found is not None
    assert found.factor == pytest.approx(factor)
    assert not found.below and not found.above


def test_nothing_is_extrapolated() -> None:
    high, low = efficiency(flat(0.9), 8, BASELINE), efficiency(flat(0.1), 8, BASELINE)
    assert high is not None and low is not None
    assert (high.factor, high.above, high.below) == (2.0, True, False)
    assert (low.factor, low.below, low.above) == (0.5, True, False)
    assert str(high) == "≥ 2 [2, ≥ 2]"
    assert str(low) == "≤ 0.5 [≤ 0.5, 0.5]"


def test_lower_is_better_turns_the_curve_around() -> None:
    errors = {4: flat(0.3), 8: flat(0.2), 16: flat(0.1)}
    found = efficiency(flat(0.15), 8, errors, lower_is_better=True)
    assert found is not None and found.factor == pytest.approx(2**0.5)


def test_the_smallest_budget_that_reaches_the_figure_counts() -> None:
    found = efficiency(flat(0.5), 4, {4: flat(0.4), 8: flat(0.5), 16: flat(0.45), 32: flat(0.6)})
    assert found is not None and found.factor == pytest.approx(2.0)


def test_interval_holds_the_factor_and_narrows_with_the_spread() -> None:
    def width(spread: float) -> float:
        noisy = {b: flat(0.4 + 0.1 * i, spread, seed=i + 1) for i, b in enumerate((4, 8, 16))}
        found = efficiency(flat(0.5, spread, seed=9), 4, noisy)
        assert isinstance(found, Efficiency)
        assert found.low <= found.factor <= found.high
        return found.high - found.low

    assert 0 < width(0.005) < width(0.05)


def test_too_little_to_interpolate() -> None:
    assert efficiency(flat(0.5), 8, {8: flat(0.5)}) is None
    assert efficiency({("Z", 0): 0.5}, 8, BASELINE) is None
