# SPDX-License-Identifier: Apache-2.0
"""Metrics of instance segmentation, each a function of one :class:`~fewlabel.metrics.Overlap`.

All are in 0..1. Where neither map has an instance, they agree: every metric is 1. Where only one has, all are 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabel.metrics._matching import assign, best_pairs
from fewlabel.metrics.overlap import Overlap


class PanopticQuality(NamedTuple):
    """Panoptic quality and its factors, ``pq = sq * rq``.

    Args:
        pq: sum of the IoU of matched pairs over the mean number of instances of both maps.
        sq: segmentation quality: mean IoU of matched pairs, 0 where nothing matched.
        rq: recognition quality: F1 of the instances.
    """

    pq: float
    sq: float
    rq: float


def aggregated_jaccard(overlap: Overlap) -> float:
    """Return the aggregated Jaccard index (AJI).

    Every true instance G_i takes the prediction S_j(i) of the largest IoU, of equal ones the first; predictions may be
    taken several times. With U the predictions that nobody took::

        AJI = sum_i |G_i & S_j(i)| / (sum_i |G_i | S_j(i)| + sum_{k in U} |S_k|)

    A true instance that no prediction touches adds its area to the denominator.

    Args:
        overlap: of prediction and truth.

    Note:
        The code released with PSM (and the one it was taken from) differs there: such an instance takes prediction
        number 0, so that the area of that prediction is added for each. Its AJI is never higher than this one.

    References:
        N. Kumar et al., "A dataset and a technique for generalized nuclear segmentation for computational pathology",
        IEEE TMI 36(7), 2017, algorithm 1; silent about instances without any overlap and about ties.

    Example:
        >>> import numpy as np
        >>> from fewlabel.metrics import instance_overlap
        >>> aggregated_jaccard(instance_overlap(np.array([[1, 1, 0, 2]]), np.array([[5, 5, 5, 0]])))
        0.5
    """
    return _jaccard(overlap, best_pairs(overlap.truth_index, overlap.pred_index, overlap.iou))


def aggregated_jaccard_plus(overlap: Overlap) -> float:
    """Return AJI+: as AJI, but no prediction is taken twice, and the total IoU of the pairs is maximal.

    Args:
        overlap: of prediction and truth.

    References:
        S. Graham et al., "HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue histology
        images", Medical Image Analysis 58, 2019, section 4.1.
    """
    return _jaccard(overlap, assign(overlap.truth_index, overlap.pred_index, overlap.iou))


def object_dice(overlap: Overlap) -> float:
    """Return the Dice of objects, weighted by area, both ways.

    With G*(S) the true instance that shares most pixels with S (of equal ones the first; without any, D = 0)::

        1/2 (sum_i |G_i| / |G| D(G_i, S*(G_i)) + sum_j |S_j| / |S| D(S_j, G*(S_j)))

    Args:
        overlap: of prediction and truth.

    References:
        K. Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest", Medical
        Image Analysis 35, 2017, equation 7.
    """
    if overlap.is_empty:
        return 1.0
    dice, shared = 2 * overlap.intersection / overlap.areas, overlap.intersection
    total = 0.0
    for own, other, area in (
        (overlap.truth_index, overlap.pred_index, overlap.truth_area),
        (overlap.pred_index, overlap.truth_index, overlap.pred_area),
    ):
        best = best_pairs(own, other, shared)
        total += float((area[own[best]] * dice[best]).sum()) / max(1, int(area.sum()))
    return total / 2


def object_f1(overlap: Overlap, min_iou: float = 0.5) -> float:
    """Return the F1 of instances, ``2 TP / (2 TP + FP + FN)``; the ``rq`` of :func:`panoptic_quality`.

    Args:
        overlap: of prediction and truth.
        min_iou: see :func:`panoptic_quality`.

    Raises:
        ValueError: ``min_iou`` is not in [0, 1).
    """
    return panoptic_quality(overlap, min_iou).rq


def panoptic_quality(overlap: Overlap, min_iou: float = 0.5) -> PanopticQuality:
    """Return the panoptic quality of one class.

    Args:
        overlap: of prediction and truth.
        min_iou: a pair counts when its IoU is larger; in [0, 1). From 0.5 on no instance can be in two such pairs;
            below, the one-to-one matching of the largest total IoU is taken.

    Raises:
        ValueError: ``min_iou`` is not in [0, 1).

    Note:
        Equal to MONAI's ``PanopticQualityMetric`` but for its smoothing term of 1e-6, which makes an empty prediction
        on an empty truth 0. That one compares whole masks, instance by instance.

    References:
        A. Kirillov et al., "Panoptic segmentation", CVPR 2019, section 4.
    """
    if not 0 <= min_iou < 1:
        raise ValueError(f"min_iou must be in [0, 1), got {min_iou!r}")
    if overlap.is_empty:
        return PanopticQuality(1.0, 1.0, 1.0)
    close = np.flatnonzero(overlap.iou > min_iou)
    matched = close[assign(overlap.truth_index[close], overlap.pred_index[close], overlap.iou[close])]
    total = float(overlap.iou[matched].sum())
    count = (overlap.pred_ids.size + overlap.truth_ids.size) / 2
    return PanopticQuality(total / count, total / max(1, matched.size), matched.size / count)


def pixel_f1(overlap: Overlap) -> float:
    """Return F1 (Dice) of the pixels of all instances together, ``2 TP / (2 TP + FP + FN)``.

    Args:
        overlap: of prediction and truth.
    """
    return _ratio(2 * overlap.intersection.sum(), overlap.pred_area.sum() + overlap.truth_area.sum())


def pixel_iou(overlap: Overlap) -> float:
    """Return IoU of the pixels of all instances together, ``TP / (TP + FP + FN)``.

    Args:
        overlap: of prediction and truth.
    """
    shared = overlap.intersection.sum()
    return _ratio(shared, overlap.pred_area.sum() + overlap.truth_area.sum() - shared)


def _jaccard(overlap: Overlap, pairs: NDArray[np.int64]) -> float:
    """Intersection of these pairs over their union and the area of all instances that are in none."""
    lost = np.delete(overlap.truth_area, overlap.truth_index[pairs]).sum()
    extra = np.delete(overlap.pred_area, overlap.pred_index[pairs]).sum()
    return _ratio(overlap.intersection[pairs].sum(), overlap.union[pairs].sum() + lost + extra)


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 1.0
