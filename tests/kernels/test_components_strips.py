# SPDX-License-Identifier: Apache-2.0
"""Components of strips are those of the whole image; oracle: scikit-image on the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from fewlabel.kernels.components import StripComponents

SETTINGS = settings(deadline=None, max_examples=80, derandomize=True)


def in_strips(mask: np.ndarray, cuts: list[int], connectivity: int) -> np.ndarray:
    strips = StripComponents(connectivity)
    labels = [strips.push(torch.from_numpy(part.copy())).numpy() for part in np.split(mask, cuts)]
    return strips.numbers()[np.concatenate(labels)]


@SETTINGS
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    share=st.floats(0.2, 0.9),
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 40), max_size=12),
    connectivity=st.sampled_from([4, 8]),
)
def test_random_masks_in_random_strips(
    size: tuple[int, int], share: float, seed: int, cuts: list[int], connectivity: int
) -> None:
    mask = np.random.default_rng(seed).random(size) < share
    got = in_strips(mask, sorted(min(cut, size[0]) for cut in cuts), connectivity)
    expected = measure.label(mask, connectivity=1 if connectivity == 4 else 2)
    np.testing.assert_array_equal(got, expected)


def test_a_spiral_through_strips_of_one_row_is_one() -> None:
    mask = np.zeros((41, 41), bool)
    for ring in range(0, 20, 2):  # nested frames, each open at one pixel, joined by a bridge beside it
        mask[ring : 41 - ring, ring : 41 - ring] = True
        mask[ring + 1 : 40 - ring, ring + 1 : 40 - ring] = False
    mask[1:20:2, 20] = True
    assert measure.label(mask, connectivity=1).max() == 1
    np.testing.assert_array_equal(in_strips(mask, list(range(1, 41)), 4), mask.astype(int))


def test_many_components_make_the_table_grow() -> None:
    mask = np.indices((200, 101)).sum(0) % 2 == 0
    got = in_strips(mask, [50, 100, 101], 4)
    assert got.max() == mask.sum() > 4096
    np.testing.assert_array_equal(got[mask], np.arange(1, mask.sum() + 1))


def test_what_does_not_fit_is_refused() -> None:
    strips = StripComponents(8)
    strips.push(torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(H, 5\), got \(2, 4\)"):
        strips.push(torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="4 or 8"):
        StripComponents(6)
