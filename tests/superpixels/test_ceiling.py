# SPDX-License-Identifier: Apache-2.0
"""The ceiling against all unions of regions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.superpixels import region_ceiling


def best_of_all(regions: torch.Tensor, labels: torch.Tensor, label: int) -> float:
    """Dice of the best of all 2^R unions, one by one."""
    organ, names = labels == label, [n for n in regions.unique().tolist() if n >= 0]
    if not organ.any():
        return math.nan
    best = 0.0
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(names, size):
            union = torch.isin(regions, torch.tensor(chosen, dtype=regions.dtype))
            best = max(best, 2 * int((union & organ).sum()) / int(union.sum() + organ.sum()))
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 4), st.integers(1, 40))
def test_no_union_is_better_and_one_is_as_good(seed: int, regions: int, classes: int, pixels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    marked = torch.randint(-1, regions, (pixels,), generator=generator)
    labels = torch.randint(0, classes, (pixels,), generator=generator)
    labels = torch.where(torch.rand(pixels, generator=generator) < 0.5, marked.clamp(min=0) % classes, labels)
    expected = [best_of_all(marked, labels, label) for label in range(1, classes)]
    got = region_ceiling(marked, labels, classes)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=0, atol=1e-12)


def test_perfect_regions_reach_one_and_gaps_do_not_count() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [2, 2, 1, 1]])
    assert region_ceiling(labels * 1000 + 7, labels, 4).tolist()[:2] == [1.0, 1.0]
    assert region_ceiling(labels + 1, labels, 4)[2].isnan()
    assert region_ceiling(torch.full_like(labels, -1), labels, 3).tolist() == [0.0, 0.0]
    torch.testing.assert_close(
        region_ceiling(torch.zeros_like(labels), labels.float(), 3), torch.tensor([8 / 12, 4 / 10], dtype=torch.float64)
    )


def test_organ_outside_of_all_regions_counts() -> None:
    regions, labels = torch.tensor([0, 0, -1, -1]), torch.tensor([1, 1, 1, 1])
    assert region_ceiling(regions, labels, 2).item() == pytest.approx(2 * 2 / (2 + 4))


def test_empty() -> None:
    assert region_ceiling(torch.zeros(0, dtype=torch.int32), torch.zeros(0), 3).isnan().all()


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        region_ceiling(torch.zeros(3, dtype=torch.int32), torch.zeros(4), 2)
    for wrong in (torch.tensor([0, 2]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match=r"\[0, 2\)"):
            region_ceiling(torch.zeros(2, dtype=torch.int32), wrong, 2)
