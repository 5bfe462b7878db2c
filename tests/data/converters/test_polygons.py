# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from fewlabel.data.converters import instance_map
from fewlabel.errors import DataError


def square(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def test_pixels_are_inside_when_their_center_is() -> None:
    rng = np.random.default_rng(0)
    turns = np.sort(rng.uniform(0, 2 * np.pi, 23))
    star = 20 + np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(6, 17, (23, 1))
    labels, lost, shared = instance_map([star], (40, 44))
    y, x = np.mgrid[:40, :44]
    expected = Outline(star).contains_points(np.stack([x.ravel() + 0.5, y.ravel() + 0.5], 1)).reshape(40, 44)
    assert np.array_equal(labels > 0, expected) and labels.dtype == np.uint16 and (lost, shared) == ([], 0)


def test_area_is_that_of_the_outline() -> None:
    labels, *_ = instance_map([square(0, 0, 4, 4), square(6, 1, 9, 3)], (10, 10))
    assert [(labels == k).sum() for k in (1, 2)] == [16, 6] and (labels[:4, :4] == 1).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_smaller_of_two_overlapping_stays_whole(order: tuple[int, int]) -> None:
    large, small = square(0, 0, 6, 6), square(4, 4, 7, 7)
    labels, lost, shared = instance_map([(large, small)[k] for k in order], (10, 10))
    mine = order.index(1) + 1
    assert (labels == mine).sum() == 9 and (labels == 3 - mine).sum() == 32 and (lost, shared) == ([], 4)


def test_what_leaves_no_pixel_is_named_and_values_have_no_gap() -> None:
    flat, tiny, outside = np.array([(1, 1), (3, 3)], float), square(1.1, 1.1, 1.3, 1.3), square(20, 20, 24, 24)
    kept = [square(0, 0, 2, 2), square(5, 5, 8, 8)]
    outlines = [kept[0], flat, tiny, kept[1], outside, kept[1].copy()]
    labels, lost, shared = instance_map(outlines, (10, 10))
    assert lost == [1, 2, 3, 4] and np.unique(labels).tolist() == [0, 1, 2] and shared == 9


def test_outlines_are_cut_at_the_border() -> None:
    labels, lost, _ = instance_map([square(-3, -3, 2, 2), square(8, 8, 13, 13)], (10, 10))
    assert (labels == 1).sum() == 4 and (labels == 2).sum() == 4 and not lost


def test_no_outline_is_an_empty_map() -> None:
    labels, lost, shared = instance_map([], (3, 4))
    assert labels.shape == (3, 4) and not labels.any() and (lost, shared) == ([], 0)


def test_more_than_uint16_holds() -> None:
    with pytest.raises(DataError, match="65536 outlines"):
        instance_map([square(0, 0, 1, 1)] * 65536, (220, 300))
