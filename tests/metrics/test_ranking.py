# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fewlabel.metrics import auc


@given(arrays(np.float32, 12, elements=st.sampled_from([-1.0, 0.0, 0.25, 3.0, math.inf])), arrays(np.bool_, 12))
@settings(max_examples=100, deadline=None)
def test_every_pair_counts(scores: NDArray[Any], mask: NDArray[Any]) -> None:
    pairs = [(f > b) + (f == b) / 2 for f in scores[mask] for b in scores[~mask]]
    if not pairs:
        assert math.isnan(auc(scores, mask))
        return
    assert auc(scores, mask) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(-scores, mask) == pytest.approx(1 - auc(scores, mask), abs=1e-12)
    assert auc(torch.from_numpy(scores).view(3, 4), torch.from_numpy(mask).view(3, 4)) == auc(scores, mask)


def test_constant_scores_say_nothing() -> None:
    assert auc(np.zeros(5), np.array([0, 1, 1, 0, 7])) == 0.5


@pytest.mark.parametrize(("scores", "message"), [(np.zeros(3), "one shape"), (np.full(2, math.nan), "NaN")])
def test_refused(scores: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auc(scores, np.array([0, 1]))
