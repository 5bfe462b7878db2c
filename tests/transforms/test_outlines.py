# SPDX-License-Identifier: Apache-2.0
"""Outlines are exact and valid; oracle: even-odd counting of crossings at the centers of pixels, written here."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from fewlabel.transforms.outlines import Polygon, polygons_of

SETTINGS = settings(deadline=None, max_examples=150, derandomize=True)


def rasterized(polygons: list[Polygon], shape: tuple[int, int]) -> NDArray[np.int64]:
    """How many polygons cover the center of each pixel."""
    out = np.zeros(shape, np.int64)
    for polygon in polygons:
        inside = np.zeros(shape, bool)
        for ring in polygon:
            for (x, y), (u, v) in pairwise(ring):
                if x == u:  # each vertical edge flips what lies to its right
                    inside[min(y, v) : max(y, v), x:] ^= True
        out += inside
    return out


def area(ring: list[tuple[int, int]]) -> float:
    return sum(x * v - u * y for (x, y), (u, v) in pairwise(ring)) / 2


@SETTINGS
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.floats(0.1, 0.95), st.integers(0, 10**6))
def test_random_masks_come_back_and_rings_are_simple(size: tuple[int, int], share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(size) < share
    polygons = polygons_of(mask)
    np.testing.assert_array_equal(rasterized(polygons, size), mask)
    assert len(polygons) == ndimage.label(mask)[1]
    for polygon in polygons:
        assert area(polygon[0]) > 0 and all(area(ring) < 0 for ring in polygon[1:])
        for ring in polygon:
            assert ring[0] == ring[-1] and len(set(ring)) == len(ring) - 1  # closed, and touches itself nowhere
            turns = (np.diff(np.array(ring), axis=0) == 0).argmax(1)  # 1 along a row, 0 along a column
            assert bool((turns[1:] != turns[:-1]).all())  # along the edges of pixels, a corner at every turn only
        assert bool((rasterized([polygon[:1]], size) >= rasterized([polygon], size)).all())  # holes lie inside


@pytest.mark.parametrize(
    ("rows", "rings"),
    [
        (["##", "##"], [1]),
        (["#.", ".#"], [1, 1]),  # touch at a corner: two polygons
        ([".#", "#."], [1, 1]),
        (["###", "#.#", "###"], [2]),
        (["##.", "#.#", "###"], [2]),  # the hole touches the outside at a corner: one polygon and a hole, not a knot
        (["####", "#.##", "##.#", "####"], [3]),  # two holes that touch
        (["#####", "#...#", "#.#.#", "#...#", "#####"], [2, 1]),  # an island in a hole
    ],
)
def test_shapes(rows: list[str], rings: list[int]) -> None:
    mask = np.array([[c == "#" for c in row] for row in rows])
    polygons = polygons_of(mask)
    assert [len(polygon) for polygon in polygons] == rings
    np.testing.assert_array_equal(rasterized(polygons, mask.shape), mask)


def test_offsets_and_empty() -> None:
    mask = np.array([[False, True]])
    assert polygons_of(mask, left=10, top=20) == [[[(11, 20), (12, 20), (12, 21), (11, 21), (11, 20)]]]
    assert polygons_of(np.zeros((3, 0), bool)) == polygons_of(np.zeros((3, 4), bool)) == []
