# SPDX-License-Identifier: Apache-2.0
"""Detection: points matched one to one within a radius, counted as a whole or class by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from fewlabel.metrics._matching import assign, best_pairs
from fewlabel.metrics._runs import Labels, as_array, instances, label_array, runs, sums
from fewlabel.metrics.overlap import instance_overlap

Points = NDArray[Any] | Tensor | Sequence[Sequence[float]]


class Matches(NamedTuple):
    """M pairs of points that belong together, in the order of the predicted ones.

    Args:
        pred: (M,) int64, places in the list of predicted points.
        truth: (M,) int64, places in the list of true points.
        distance: (M,) float64, in the unit of ``spacing``.
    """

    pred: NDArray[np.int64]
    truth: NDArray[np.int64]
    distance: NDArray[np.float64]


class Objects(NamedTuple):
    """The N instances of a label map as points.

    Args:
        ids: (N,) their values in the map, ascending.
        points: (N, 2) or (N, 3) float64, centroids in pixels, in the order of the axes.
        classes: (N,) their classes, 0 where they have none; None without a class map.
    """

    ids: NDArray[Any]
    points: NDArray[np.float64]
    classes: NDArray[Any] | None


@dataclass(frozen=True)
class DetectionScores:
    """Counts of a detection, and what follows from them. Scores of several images add up (``sum(all, start=...)``).

    A quotient without a denominator is 1 where there was nothing to find and nothing was found, else 0.

    Args:
        true_positives: predicted points that have a true one of their own.
        false_positives: predicted points without.
        false_negatives: true points without.

    Example:
        >>> scores = DetectionScores(3, 1, 0) + DetectionScores(0, 0, 2)
        >>> scores.precision, scores.recall, round(scores.f1, 3), scores.count_error
        (0.75, 0.6, 0.667, 1)
    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: DetectionScores) -> DetectionScores:
        return DetectionScores(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted points that are true, in 0..1."""
        return self._share(self.true_positives, self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the true points that were found, in 0..1."""
        return self._share(self.true_positives, self.false_negatives)

    @property
    def f1(self) -> float:
        """``2 TP / (2 TP + FP + FN)``, in 0..1."""
        return self._share(2 * self.true_positives, self.false_positives + self.false_negatives)

    @property
    def count_error(self) -> int:
        """How far the number of predicted points is from that of the true ones, without sign."""
        return abs(self.false_positives - self.false_negatives)

    def _share(self, right: int, wrong: int) -> float:
        if right + wrong == 0:
            return float(self.false_positives + self.false_negatives == 0)
        return right / (right + wrong)


def match_points(pred: Points, truth: Points, radius: float, spacing: float | Sequence[float] = 1.0) -> Matches:
    """Match points one to one.

    As many pairs as possible are matched, and of all such matchings the one of the smallest total distance is taken.

    Args:
        pred: (P, 2) or (P, 3), in pixels, any numeric type.
        truth: (T, 2) or (T, 3), in the same order of axes.
        radius: points farther apart than this never match; in pixels, or in the unit of ``spacing``.
        spacing: size of a pixel, one number or one an axis (0.25 for 0.25 um: then ``radius`` is in um).

    Raises:
        ValueError: points are no such lists, or hold values that are not finite; radius or spacing is not positive.

    Note:
        Only pairs within the radius are looked at, so time and memory grow with their number, not with P times T.

    Example:
        >>> found = match_points([[0, 0], [0, 4]], [[0, 1], [9, 9], [0, 3]], radius=3)
        >>> found.pred.tolist(), found.truth.tolist(), found.distance.tolist()
        ([0, 1], [0, 2], [1.0, 1.0])
    """
    if not radius > 0 or not np.all(np.asarray(spacing) > 0):
        raise ValueError(f"expected a positive radius and spacing, got {radius!r} and {spacing!r}")
    p, t = _point_array(pred, "pred"), _point_array(truth, "truth")
    if not p.size or not t.size:
        return Matches(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    if p.shape[1] != t.shape[1]:
        raise ValueError(f"expected points of one number of axes, got {p.shape} and {t.shape}")
    reach = radius * (1 + 1e-9)  # 3 pixels of 0.1 um lie within 0.3 um
    near = KDTree(p * spacing).sparse_distance_matrix(KDTree(t * spacing), reach, output_type="ndarray")
    i, j, distance = near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"]
    # One pair more outweighs all that distances can add up to: less than 1 a pair.
    chosen = assign(i, j, 1 + min(len(p), len(t)) - distance / reach)
    chosen = chosen[np.argsort(i[chosen])]
    return Matches(i[chosen], j[chosen], distance[chosen])


def detection_scores(
    pred: Points, truth: Points, radius: float, spacing: float | Sequence[float] = 1.0
) -> DetectionScores:
    """Count what a detection found; see :func:`match_points` for arguments and errors.

    Example:
        >>> detection_scores([[0, 0], [0, 4]], [[0, 1], [9, 9], [0, 3]], radius=3)
        DetectionScores(true_positives=2, false_positives=0, false_negatives=1)
    """
    hits = len(match_points(pred, truth, radius, spacing).pred)
    return DetectionScores(hits, len(pred) - hits, len(truth) - hits)


def objects_of(labels: Labels, class_map: Labels | None = None) -> Objects:
    """Return the centroid, and the class, of every instance.

    Args:
        labels: (H, W) or (D, H, W), whole numbers of any type, 0 is background.
        class_map: of the same shape, 0 where there is no class. An instance has the class of most of its pixels, of
            equally frequent ones the lowest; pixels of class 0 have no say.

    Raises:
        TypeError: maps are neither bool nor real numbers.
        ValueError: shapes differ or are neither 2-D nor 3-D; a value is negative or no whole number.

    Example:
        >>> import numpy as np
        >>> labels = np.array([[3, 3, 0], [3, 3, 7]])
        >>> found = objects_of(labels, np.array([[1, 2, 0], [2, 2, 1]]))
        >>> found.ids.tolist(), found.points.tolist(), found.classes.tolist()
        ([3, 7], [[0.5, 0.5], [1.0, 2.0]], [2, 1])
    """
    array = label_array(labels, "labels")
    starts, length = runs(array, by_row=True)
    ids, index = instances(array.ravel()[starts])
    places = [place.astype(np.float64) for place in np.unravel_index(starts, array.shape)]
    places[-1] += (length - 1) / 2
    area = sums(index, length, ids.size)
    points = np.stack([sums(index, place * length, ids.size) / area for place in places], axis=1)
    if class_map is None:
        return Objects(ids, points, None)
    overlap = instance_overlap(class_map, array)
    classes = np.zeros(ids.size, np.int64)
    best = best_pairs(overlap.truth_index, overlap.pred_index, overlap.intersection)
    classes[overlap.truth_index[best]] = overlap.pred_ids[overlap.pred_index[best]]
    return Objects(ids, points, classes)


def class_detection_scores(
    pred: Objects, truth: Objects, classes: Iterable[int], radius: float, spacing: float | Sequence[float] = 1.0
) -> dict[int, DetectionScores]:
    """Count detections class by class: points match only within their class.

    A cell that was found in the wrong class is a false positive of one class and a false negative of the other.

    Args:
        pred: predicted instances with classes, see :func:`objects_of`; or points of any origin put into ``Objects``.
        truth: true ones.
        classes: which classes to count.
        radius: see :func:`match_points`.
        spacing: see :func:`match_points`.

    Raises:
        ValueError: instances have no classes; see also :func:`match_points`.
    """
    if pred.classes is None or truth.classes is None:
        raise ValueError("expected objects with classes, got none in " + ("pred" if pred.classes is None else "truth"))
    return {
        value: detection_scores(
            pred.points[pred.classes == value], truth.points[truth.classes == value], radius, spacing
        )
        for value in classes
    }


def _point_array(points: Points, name: str) -> NDArray[np.float64]:
    array = as_array(points).astype(np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] not in (2, 3) or not np.isfinite(array).all()):
        raise ValueError(f"{name}: expected finite numbers of shape (N, 2) or (N, 3), got {array.shape}")
    return array
