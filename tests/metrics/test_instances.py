# SPDX-License-Identifier: Apache-2.0
"""Metrics of instances against double loops over masks, MONAI, and what must hold whatever the maps are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics.panoptic_quality import compute_panoptic_quality
from numpy.typing import NDArray
from tests.metrics import _slow

from fewlabel import metrics as m

METRICS: dict[str, Callable[[m.Overlap], float]] = {
    "aji": m.aggregated_jaccard,
    "aji_plus": m.aggregated_jaccard_plus,
    "object_dice": m.object_dice,
    "object_f1": m.object_f1,
    "pq": lambda overlap: m.panoptic_quality(overlap).pq,
    "sq": lambda overlap: m.panoptic_quality(overlap).sq,
    "pixel_f1": m.pixel_f1,
    "pixel_iou": m.pixel_iou,
}
SMALL = arrays(np.int64, (4, 5), elements=st.integers(0, 4))


def scores(pred: Any, truth: Any) -> dict[str, float]:
    overlap = m.instance_overlap(pred, truth)
    return {name: metric(overlap) for name, metric in METRICS.items()}


def slow_scores(pred: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    pq, sq, f1 = _slow.panoptic(pred, truth)
    shared, both = ((pred != 0) & (truth != 0)).sum(), (pred != 0).sum() + (truth != 0).sum()
    return {
        "aji": _slow.aji(pred, truth),
        "object_dice": _slow.object_dice(pred, truth),
        "object_f1": f1,
        "pq": pq,
        "sq": sq,
        "pixel_f1": 2 * shared / both if both else 1.0,
        "pixel_iou": shared / (both - shared) if both else 1.0,
    }


@given(SMALL, SMALL)
@settings(max_examples=150, deadline=None)
def test_small_maps_against_loops(pred: NDArray[Any], truth: NDArray[Any]) -> None:
    found = scores(pred, truth)
    assert any(abs(found["aji_plus"] - value) < 1e-9 for value in _slow.aji_plus(pred, truth))
    assert {name: found[name] for name in slow_scores(pred, truth)} == pytest.approx(slow_scores(pred, truth))


@pytest.mark.parametrize("seed", range(4))
def test_discs_against_loops_and_monai(seed: int) -> None:
    pred, truth = _slow.discs(seed)
    found, expected = scores(pred, truth), slow_scores(pred, truth)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for name, ours in zip(("pq", "sq", "rq"), m.panoptic_quality(m.instance_overlap(pred, truth)), strict=True):
        theirs = compute_panoptic_quality(torch.from_numpy(pred), torch.from_numpy(truth), metric_name=name)
        assert float(theirs) == pytest.approx(ours, abs=1e-5), name


@pytest.mark.parametrize("min_iou", [0.2, 0.7])
def test_panoptic_quality_at_other_thresholds_is_monais(min_iou: float) -> None:
    pred, truth = _slow.discs(5)
    theirs = [
        float(compute_panoptic_quality(*map(torch.from_numpy, (pred, truth)), name, match_iou_threshold=min_iou))
        for name in ("pq", "sq", "rq")
    ]
    overlap = m.instance_overlap(pred, truth)
    assert theirs == pytest.approx(m.panoptic_quality(overlap, min_iou), abs=1e-5)
    assert m.object_f1(overlap, min_iou) == pytest.approx(theirs[2], abs=1e-5)


@given(SMALL, SMALL)
@settings(max_examples=100, deadline=None)
def test_what_always_holds(pred: NDArray[Any], truth: NDArray[Any]) -> None:
    found, back = scores(pred, truth), scores(truth, pred)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["pixel_f1"] == pytest.approx(2 * found["pixel_iou"] / (1 + found["pixel_iou"]))
    assert found["pq"] == pytest.approx(found["sq"] * found["object_f1"])
    assert found["aji"] <= found["pixel_iou"] + 1e-12  # a shared pixel of AJI is one of the foregrounds
    symmetric = ("object_dice", "object_f1", "pq", "sq", "pixel_f1", "pixel_iou")
    assert [found[name] for name in symmetric] == pytest.approx([back[name] for name in symmetric])
    assert set(scores(truth, truth).values()) == {1.0}
    sparse = np.array([0, 3, 70, 71, 2**40])  # order, which decides between equal pairs, is kept
    assert scores(sparse[pred], sparse[truth]) == found


@pytest.mark.parametrize("seed", range(3))
def test_numbering_and_order_of_pixels_do_not_matter(seed: int) -> None:
    pred, truth = _slow.discs(seed)
    rng = np.random.default_rng(seed)
    names = np.append(0, 1 + rng.permutation(40))
    place = rng.permutation(pred.size)
    moved = [names[labels].ravel()[place].reshape(pred.shape) for labels in (pred, truth)]
    assert scores(*moved) == pytest.approx(scores(pred, truth))


@pytest.mark.parametrize(("pred", "truth", "expected"), [(0, 0, 1.0), (0, 3, 0.0), (3, 0, 0.0), (3, 3, 1.0)])
def test_empty_maps(pred: int, truth: int, expected: float) -> None:
    maps = [np.zeros((3, 3), np.int32), np.zeros((3, 3), np.int32)]
    maps[0][1], maps[1][1] = pred, truth
    assert set(scores(*maps).values()) == {expected}
    assert scores(np.zeros((0, 3), int), np.zeros((0, 3), int)) == scores(maps[0] * 0, maps[0] * 0)


def test_a_truth_without_overlap_adds_its_area_and_nothing_else() -> None:
    truth, pred = np.array([[1, 1, 0, 2, 2]]), np.array([[1, 1, 0, 0, 0]])
    assert m.aggregated_jaccard(m.instance_overlap(pred, truth)) == 2 / (2 + 2)  # as released: 2 / (2 + 2 + 2)


@pytest.mark.parametrize(("short", "long", "expected"), [(3, 5, 2 / (6 + 6)), (5, 3, 3 / (9 + 2))])
def test_equal_iou_takes_the_first(short: int, long: int, expected: float) -> None:
    truth = np.array([[1] * 6 + [0] * 3])
    pred = np.array([[short] * 2 + [0] + [long] * 6])
    overlap = m.instance_overlap(pred, truth)
    assert overlap.iou.tolist() == [1 / 3, 1 / 3] and m.aggregated_jaccard(overlap) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64, np.float32])
def test_types_devices_and_volumes(dtype: Any) -> None:
    pred, truth = _slow.discs(0)
    expected = scores(pred, truth)
    assert scores(pred.astype(dtype), truth) == expected
    assert scores(torch.from_numpy(pred.astype(dtype)), torch.from_numpy(truth)) == expected
    volumes = [np.pad(labels, ((0, 0), (3, 3))).reshape(10, 9, 96).astype(dtype) for labels in (pred, truth)]
    assert scores(*volumes) == expected
    assert scores(pred.T.astype(dtype), np.asfortranarray(truth.T)) == pytest.approx(expected)


def test_a_mask_is_one_instance() -> None:
    found = m.instance_overlap(np.array([[True, False, True]]), np.array([[2, 2, 0]]))
    assert found.pred_area.tolist() == [2] and found.intersection.tolist() == [1]


@pytest.mark.parametrize(
    ("pred", "truth", "error", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), ValueError, "one shape"),
        (np.zeros(4, int), np.zeros(4, int), ValueError, r"\(H, W\)"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), ValueError, "0 for background"),
        (np.full((2, 2), 0.5), np.zeros((2, 2), int), ValueError, "got 0.5"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), int), ValueError, "got nan"),
        (np.zeros((2, 2), complex), np.zeros((2, 2), int), TypeError, "complex128"),
    ],
)
def test_refused_maps(pred: Any, truth: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        m.instance_overlap(pred, truth)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_refused_thresholds(value: float) -> None:
    with pytest.raises(ValueError, match="min_iou"):
        m.object_f1(m.instance_overlap(np.ones((2, 2), int), np.ones((2, 2), int)), value)


def tile(seed: int) -> NDArray[Any]:
    """750 discs of 8 to 17 pixels radius in 1000 x 1000, many of them touching."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-18:19, -18:19]
    labels = np.zeros((1036, 1036), np.int32)
    for value in range(1, 751):
        y, x = (18 + 35 * np.array(divmod(value, 28)) + rng.integers(-6, 7, 2) + 18).tolist()
        labels[y - 18 : y + 19, x - 18 : x + 19][rows**2 + columns**2 <= rng.integers(8, 18) ** 2] = value
    return labels[18:-18, 18:-18]


def test_a_tile_of_750_nuclei_takes_a_fraction_of_a_second() -> None:
    pred, truth = tile(0), tile(1)

    def everything() -> float:
        start = time.perf_counter()
        scores(pred, truth)
        m.detection_scores(m.objects_of(pred).points, m.objects_of(truth).points, 6.0)
        return time.perf_counter() - start

    assert min(everything() for _ in range(5)) < 0.5  # a double loop over masks takes minutes
