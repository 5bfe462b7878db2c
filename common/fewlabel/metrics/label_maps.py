# SPDX-License-Identifier: Apache-2.0
"""Metrics of label maps for MONAI's evaluators; what they compute are functions of this package."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from fewlabel.kernels.components import connected_components
from fewlabel.metrics import instances
from fewlabel.metrics.detection import DetectionScores, class_detection_scores, detection_scores, objects_of
from fewlabel.metrics.overlap import Overlap, instance_overlap

TRUTHS = ("instances", "components")
FIGURES = ("f1", "precision", "recall", "count_error")
_SCORES: dict[str, Callable[[Overlap], float]] = {
    "aji_plus": instances.aggregated_jaccard_plus,
    "object_dice": instances.object_dice,
    "object_f1": instances.object_f1,
    "panoptic_quality": lambda overlap: instances.panoptic_quality(overlap).pq,
    "pixel_f1": instances.pixel_f1,
    "pixel_iou": instances.pixel_iou,
}


class _LabelMapMetric(CumulativeIterationMetric):
    """Collect a row of numbers a case from prediction and truth, (C, *spatial) each, of whole numbers in any type."""

    def __init__(self, truth: str, channels: int = 1) -> None:
        super().__init__()
        if truth not in TRUTHS:
            raise ValueError(f"expected one of {', '.join(TRUTHS)} as truth, got {truth!r}")
        self.truth, self.channels = truth, channels

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None or y_pred.shape != y.shape or y_pred.ndim not in (4, 5) or y_pred.shape[1] != self.channels:
            expected = f"label maps of one shape, (B, {self.channels}, H, W) or (B, {self.channels}, D, H, W)"
            raise ValueError(f"expected {expected}, got {tuple(y_pred.shape)} and {y if y is None else tuple(y.shape)}")
        pred, truth = y_pred.as_subclass(Tensor), y.as_subclass(Tensor)
        if self.truth == "components":
            merged = connected_components(truth[:, :1] > 0, 8 if y.ndim == 4 else 26)[0]
            truth = torch.cat([merged, truth[:, 1:]], dim=1)
        rows = [self._row(*maps) for maps in zip(pred, truth, strict=True)]
        return torch.tensor(rows, dtype=torch.float64, device=y_pred.device)

    @abstractmethod
    def _row(self, pred: Tensor, truth: Tensor) -> list[float]: ...

    def _rows(self) -> Tensor:
        """All rows of all processes since ``reset``, (cases, columns) float64."""
        rows = self.get_buffer()
        if not isinstance(rows, Tensor):
            raise ValueError(f"no case was seen; the buffer holds {type(rows).__name__}")
        return rows


class InstanceMetric(_LabelMapMetric):
    """Mean over images of a metric of instances.

    Prediction and truth are label maps (B, 1, H, W) or (B, 1, D, H, W), or lists of (1, *spatial): whole numbers in any
    type, 0 is background, every instance has a value of its own.

    Args:
        score: makes a number of the overlap of an image, as :func:`~fewlabel.metrics.aggregated_jaccard`.
        truth: ``instances`` takes the truth as it is; ``components`` takes the connected components (8 or 26 neighbors)
            of its foreground, as the code released with PSM does. Touching instances are one then, and figures of the
            two kinds cannot be compared.
    """

    def __init__(self, score: Callable[[Overlap], float], truth: str = "instances") -> None:
        super().__init__(truth)
        self.score = score

    def _row(self, pred: Tensor, truth: Tensor) -> list[float]:
        return [self.score(instance_overlap(pred[0], truth[0]))]

    def aggregate(self) -> Tensor:
        """Return the mean of everything seen since ``reset``, a float64 scalar."""
        return self._rows().mean()


class DetectionMetric(_LabelMapMetric):
    """Detection by centroids, matched one to one within a radius, over all images together (micro-averaged).

    The details of a case are its true positives, false positives and false negatives.

    Args:
        radius_px: see :func:`~fewlabel.metrics.match_points`.
        figure: ``f1``, ``precision`` and ``recall`` come from the sums of counts over all images; ``count_error`` is
            the mean over images of how far the number of predicted instances is from the true one.
        truth: see :class:`InstanceMetric`.
        class_value: None takes maps as :class:`InstanceMetric` does. A number counts instances of this class only;
            maps then have a second channel, the class of each pixel, as for MONAI's ``PanopticQualityMetric``.
    """

    def __init__(
        self, radius_px: float, figure: str = "f1", truth: str = "instances", class_value: int | None = None
    ) -> None:
        super().__init__(truth, channels=1 if class_value is None else 2)
        if figure not in FIGURES:
            raise ValueError(f"expected one of {', '.join(FIGURES)} as figure, got {figure!r}")
        self.radius_px, self.figure, self.class_value = radius_px, figure, class_value

    def _row(self, pred: Tensor, truth: Tensor) -> list[float]:
        found, real = objects_of(*pred), objects_of(*truth)
        if self.class_value is None:
            scores = detection_scores(found.points, real.points, self.radius_px)
        else:
            scores = class_detection_scores(found, real, [self.class_value], self.radius_px)[self.class_value]
        return [scores.true_positives, scores.false_positives, scores.false_negatives]

    def aggregate(self) -> Tensor:
        """Return the figure over everything seen since ``reset``, a float64 scalar."""
        cases = [DetectionScores(*map(int, row)) for row in self._rows().tolist()]
        if self.figure == "count_error":
            value = sum(case.count_error for case in cases) / len(cases)
        else:
            value = getattr(sum(cases, start=DetectionScores()), self.figure)
        return torch.tensor(value, dtype=torch.float64)


class ClassDetectionMetric(_LabelMapMetric):
    """Mean over images of the F1 of detection, of all classes together: a cell of the wrong class is wrong twice.

    Maps have two channels, instances and the class of each pixel.

    Args:
        radius_px: see :func:`~fewlabel.metrics.match_points`.
        classes: which classes to count.
        truth: see :class:`InstanceMetric`.
    """

    def __init__(self, radius_px: float, classes: Sequence[int], truth: str = "instances") -> None:
        super().__init__(truth, channels=2)
        self.radius_px, self.classes = radius_px, list(classes)

    def _row(self, pred: Tensor, truth: Tensor) -> list[float]:
        scores = class_detection_scores(objects_of(*pred), objects_of(*truth), self.classes, self.radius_px)
        return [sum(scores.values(), start=DetectionScores()).f1]

    def aggregate(self) -> Tensor:
        """Return the mean of everything seen since ``reset``, a float64 scalar."""
        return self._rows().mean()


def key_aji(pred: str = "pred", label: str = "label", truth: str = "instances") -> IgniteMetricHandler:
    """Mean over images of the aggregated Jaccard index; no instance where none is true counts 1.

    Args:
        pred: key of the predicted label map, (1, *spatial).
        label: key of the true one.
        truth: see :class:`InstanceMetric`.
    """
    return _handler(InstanceMetric(instances.aggregated_jaccard, truth), from_engine([pred, label]))


def key_class_f1(
    radius_px: float,
    class_names: Sequence[str],
    pred: str = "pred",
    label: str = "label",
    pred_class: str = "pred_class",
    label_class: str = "label_class",
) -> IgniteMetricHandler:
    """See :class:`ClassDetectionMetric`.

    Args:
        radius_px: as there.
        class_names: of the classes, the background first.
        pred: see :func:`class_scores`; so are the others.
        label: key of the true label map.
        pred_class: key of the class of each predicted pixel.
        label_class: key of the class of each true pixel.
    """
    metric = ClassDetectionMetric(radius_px, range(1, len(class_names)))
    return _handler(metric, _stacked([pred, pred_class], [label, label_class]))


def detection_columns(class_names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the names of the columns of each ``detection_f1``, for :class:`~fewlabel.handlers.ScoresHandler`.

    Args:
        class_names: as in :func:`class_scores`; with fewer than three there is one such metric.

    Example:
        >>> list(detection_columns(["background", "a", "b"]))
        ['detection_f1', 'detection_f1_a', 'detection_f1_b']
    """
    counts = ("true_positives", "false_positives", "false_negatives")
    suffixes = ["", *(f"_{name}" for name in class_names[1:] if len(class_names) > 2)]
    return {f"detection_f1{suffix}": [f"{count}{suffix}" for count in counts] for suffix in suffixes}


def class_scores(
    radius_px: float,
    class_names: Sequence[str],
    pred: str = "pred",
    label: str = "label",
    truth: str = "instances",
    pred_class: str = "pred_class",
    label_class: str = "label_class",
) -> dict[str, IgniteMetricHandler]:
    """Return the scores of detection by name, where instances are points and nothing else of them counts.

    Args:
        radius_px: a centroid within this distance of a true one can match it; in pixels.
        class_names: name of each class, the background first; empty counts without classes only.
        pred: key of the predicted label map, (1, *spatial).
        label: key of the true one.
        truth: see :class:`InstanceMetric`.
        pred_class: key of the class of each predicted pixel, (1, *spatial); only for classes.
        label_class: key of the class of each true pixel.

    Returns:
        ``detection_f1``, ``detection_precision``, ``detection_recall`` (all images together) and ``count_error`` (per
        image, then mean), whatever the class; the same with ``_<class name>`` of each class by itself. The details of
        ``detection_f1`` are three columns a case, see :func:`detection_columns`.
    """
    found = _detections("", from_engine([pred, label]), radius_px, truth, None)
    with_classes = _stacked([pred, pred_class], [label, label_class])
    for value, name in enumerate(class_names[1:], start=1):
        found |= _detections(f"_{name}", with_classes, radius_px, truth, value)
    return found


def instance_scores(
    radius_px: float = 6.0,
    pred: str = "pred",
    label: str = "label",
    truth: str = "instances",
    class_names: Sequence[str] | None = None,
    pred_class: str = "pred_class",
    label_class: str = "label_class",
) -> dict[str, IgniteMetricHandler]:
    """Return the other scores of our tables of instances, by name.

    Args:
        radius_px: a centroid within this distance of a true one can match it; in pixels.
        pred: key of the predicted label map, (1, *spatial).
        label: key of the true one.
        truth: see :class:`InstanceMetric`.
        class_names: name of each class, the background first; adds the detection of each other class by itself.
        pred_class: key of the class of each predicted pixel, (1, *spatial); only for classes.
        label_class: key of the class of each true pixel.

    Returns:
        ``aji_plus``, ``object_dice``, ``object_f1`` (IoU above 0.5), ``panoptic_quality``, ``pixel_f1``, ``pixel_iou``
        (per image, then mean); ``detection_f1``, ``detection_precision``, ``detection_recall`` (all images together)
        and ``count_error`` (per image, then mean); these four again with ``_<class name>``. The details of
        ``detection_f1`` are three columns a case; the other three are made from the same and have none.
    """
    maps = from_engine([pred, label])
    found = {name: _handler(InstanceMetric(score, truth), maps) for name, score in _SCORES.items()}
    found |= class_scores(radius_px, class_names or (), pred, label, truth, pred_class, label_class)
    return found


def _detections(
    suffix: str, maps: Callable[..., Any], radius_px: float, truth: str, class_value: int | None
) -> dict[str, IgniteMetricHandler]:
    names = {figure: figure if figure == "count_error" else f"detection_{figure}" for figure in FIGURES}
    return {
        f"{name}{suffix}": _handler(DetectionMetric(radius_px, figure, truth, class_value), maps, figure == "f1")
        for figure, name in names.items()
    }


def _handler(metric: _LabelMapMetric, maps: Callable[..., Any], save_details: bool = True) -> IgniteMetricHandler:
    return IgniteMetricHandler(metric_fn=metric, output_transform=maps, save_details=save_details)


def _stacked(pred: list[str], label: list[str]) -> Callable[[Any], tuple[list[Tensor], ...]]:
    """Return what takes several keys of each item as the channels of one map."""

    def maps(output: Any) -> tuple[list[Tensor], ...]:
        return tuple(
            [torch.cat([*channels]) for channels in zip(*from_engine(keys)(output), strict=True)]
            for keys in (pred, label)
        )

    return maps
