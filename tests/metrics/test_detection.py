# SPDX-License-Identifier: Apache-2.0
"""Detection against all permutations of few points, and class by class."""

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
from scipy.ndimage import center_of_mass
from scipy.optimize import linear_sum_assignment
from tests.metrics import _slow

from fewlabel.metrics import (
    DetectionScores,
    Objects,
    class_detection_scores,
    detection_scores,
    match_points,
    objects_of,
)

POINTS = st.integers(0, 5).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(0, 9)))


@given(POINTS, POINTS, st.sampled_from([1.0, 2.0, 3.5, 20.0]))
@settings(max_examples=150, deadline=None)
def test_as_many_pairs_as_possible_and_of_those_the_nearest(
    pred: NDArray[Any], truth: NDArray[Any], radius: float
) -> None:
    found = match_points(pred, truth, radius)
    count, distance = _slow.detections(pred, truth, radius)
    assert len(found.pred) == count and found.distance.sum() == pytest.approx(distance)
    assert len({*found.pred.tolist()}) == len({*found.truth.tolist()}) == count
    assert found.pred.tolist() == sorted(found.pred.tolist())
    lengths = np.linalg.norm(pred[found.pred].astype(float) - truth[found.truth], axis=1)
    assert found.distance == pytest.approx(lengths) and (found.distance <= radius).all()
    scores = detection_scores(pred, truth, radius)
    assert scores == DetectionScores(count, len(pred) - count, len(truth) - count)
    assert scores.count_error == abs(len(pred) - len(truth))


def test_two_pairs_are_better_than_the_nearest_one() -> None:
    found = match_points([[0, 0], [0, 3]], [[0, 2], [0, 5]], radius=2)
    assert found.pred.tolist() == [0, 1] and found.truth.tolist() == [0, 1]


def test_crowds_are_matched_as_by_one_hungarian_matching() -> None:
    rng = np.random.default_rng(0)
    pred, truth = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (140, 2))
    distance = np.linalg.norm(pred[:, None] - truth, axis=2)
    cost = np.where(distance <= 3, distance, 1e4)
    r, c = linear_sum_assignment(cost)
    near = distance[r, c] <= 3
    found = match_points(torch.from_numpy(pred), truth, 3)
    assert len(found.pred) == near.sum() and found.distance.sum() == pytest.approx(distance[r, c][near].sum())


def test_radius_in_micrometers_includes_its_border() -> None:
    assert len(match_points([[0, 0]], [[3, 0]], radius=0.3, spacing=0.1).pred) == 1
    assert len(match_points([[0, 0]], [[3, 1]], radius=0.3, spacing=0.1).pred) == 0
    spacing = (2.0, 0.5, 0.5)
    assert match_points([[1, 0, 0]], [[0, 3, 4]], radius=4, spacing=spacing).distance[0] == pytest.approx(
        math.sqrt(10.25)
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (DetectionScores(), (1.0, 1.0, 1.0)),
        (DetectionScores(0, 2, 0), (0.0, 0.0, 0.0)),
        (DetectionScores(0, 0, 2), (0.0, 0.0, 0.0)),
        (DetectionScores(2, 0, 2), (1.0, 0.5, 2 / 3)),
    ],
)
def test_quotients(scores: DetectionScores, expected: tuple[float, float, float]) -> None:
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pred", "truth", "options", "message"),
    [
        ([[0, 0]], [[0, 0]], {"radius": 0}, "positive radius"),
        ([[0, 0]], [[0, 0]], {"radius": 1, "spacing": (1, 0)}, "spacing"),
        ([[0, 0]], [[0, 0, 0]], {"radius": 1}, "number of axes"),
        ([0, 0], [[0, 0]], {"radius": 1}, "pred: expected"),
        ([[0, 0]], [[0, math.nan]], {"radius": 1}, "truth: expected finite"),
    ],
)
def test_refused_points(pred: Any, truth: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_points(pred, truth, **options)


@pytest.mark.parametrize("shape", [(90, 90), (9, 30, 30)])
def test_centroids_are_scipys(shape: tuple[int, ...]) -> None:
    labels = _slow.discs(0)[0].reshape(shape)
    found = objects_of(torch.from_numpy(labels))
    ids = np.unique(labels)[1:]
    assert found.ids.tolist() == ids.tolist() and found.classes is None
    np.testing.assert_allclose(found.points, center_of_mass(labels != 0, labels, ids))


def test_class_of_most_pixels_ties_lowest_background_has_no_say() -> None:
    labels = np.array([[4, 4, 4, 4, 0, 8, 8, 9]])
    class_map = np.array([[0, 0, 0, 2, 1, 2, 1, 0]])
    found = objects_of(labels, class_map)
    assert found.classes is not None and found.classes.tolist() == [2, 1, 0]


def test_a_wrong_class_counts_in_both() -> None:
    points = np.array([[0.0, 0], [0, 20], [0, 40]])
    pred = Objects(np.arange(3), points, np.array([1, 1, 2]))
    truth = Objects(np.arange(3), points + 1, np.array([1, 2, 2]))
    assert class_detection_scores(pred, truth, (1, 2, 3), radius=6) == {
        1: DetectionScores(1, 1, 0),
        2: DetectionScores(1, 0, 1),
        3: DetectionScores(),
    }
    with pytest.raises(ValueError, match="truth"):
        class_detection_scores(pred, truth._replace(classes=None), (1,), radius=6)
