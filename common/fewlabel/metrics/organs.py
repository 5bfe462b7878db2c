# SPDX-License-Identifier: Apache-2.0
"""Scores of several organs, one column each: Dice, and the Hausdorff distance in millimeters.

Both leave out an organ that the truth of a case does not show, whatever was predicted there; a case counts as the mean
over its organs, the result as the mean over cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import DiceMetric, HausdorffDistanceMetric, compute_hausdorff_distance
from torch import Tensor

KEY, DISTANCE = "mean_dice", "hd95_mm"


class OrganDistance(HausdorffDistanceMetric):
    """Hausdorff distance of each class but the background, in the unit of the affine, which is millimeters.

    The larger of the two directed percentiles of distances between the surfaces, which are the voxels of a mask with
    a neighbor (4 or 6) outside. MONAI's metric, with three differences: distances are measured with the spacing that
    each truth carries; a class that was missed altogether counts as the diagonal of the image, because infinity would
    make every mean infinite, and leaving it out would reward the miss; one that is not there in truth is NaN.

    Prediction (B, K, *space), one-hot, or (B, 1, *space), class of each voxel; truth likewise, a MetaTensor. Lists of
    items without B do as well. Where a file states no spacing (a PNG, say) its affine is that of 1 mm.

    Args:
        classes: K, background included; None takes the channels of the prediction.
        percentile: of the distances, in 0..100.

    Note:
        Masks are cropped to what they hold, so that time grows with the organs, not with the volume.
    """

    def __init__(self, classes: int | None = None, percentile: float = 95.0) -> None:
        super().__init__(include_background=False, percentile=percentile)
        self.classes = classes

    def _compute_tensor(self, y_pred: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        if y_pred.shape[0] != y.shape[0] or y_pred.shape[2:] != y.shape[2:]:
            raise ValueError(f"expected maps of one grid, got {tuple(y_pred.shape)} and {tuple(y.shape)}")
        classes = self.classes or y_pred.shape[1]
        if classes < 2:
            raise ValueError("expected a one-hot prediction, or the number of classes for a map of classes")
        rows = [
            [self._distance(_mask(pred, c), _mask(truth, c), _spacing(truth)) for c in range(1, classes)]
            for pred, truth in zip(y_pred, y, strict=True)
        ]
        return torch.tensor(rows, device=y_pred.device)

    def _distance(self, pred: Tensor, truth: Tensor, spacing: list[float]) -> float:
        if not truth.any():
            return torch.nan
        if not pred.any():
            return float(torch.linalg.vector_norm(torch.tensor(truth.shape) * torch.tensor(spacing)))
        pair = pred[None, None], truth[None, None]
        return float(
            compute_hausdorff_distance(*pair, include_background=True, percentile=self.percentile, spacing=spacing)
        )


def _spacing(truth: Tensor) -> list[float]:
    if not isinstance(truth, MetaTensor):
        raise ValueError("expected the truth as a MetaTensor, whose affine says how large voxels are; got a tensor")
    return [float(s) for s in truth.pixdim][: truth.ndim - 1]


def _mask(labels: Tensor, number: int) -> Tensor:
    """Where a class is, *space; of (1, *space) classes or (K, *space) one-hot."""
    values = labels.as_subclass(Tensor)
    return values[0] == number if len(values) == 1 else values[number] > 0.5


def key_organ_dice(
    class_names: Sequence[str] | None = None, pred: str = "pred", label: str = "label"
) -> IgniteMetricHandler:
    """Mean over cases of the mean Dice over the organs that the truth of the case shows.

    Details are a column an organ, NaN where the truth does not show it: what was predicted there is not counted.

    Args:
        class_names: name of each class, the background first; None takes the channels of a one-hot prediction.
        pred: key of the prediction, one-hot (K, *space) or, with names, also the class of each voxel, (1, *space).
        label: key of the truth, likewise.
    """
    metric = DiceMetric(include_background=False, num_classes=len(class_names) if class_names else None)
    return IgniteMetricHandler(metric_fn=metric, output_transform=from_engine([pred, label]))


def organ_scores(
    class_names: Sequence[str] | None = None, pred: str = "pred", label: str = "label"
) -> dict[str, IgniteMetricHandler]:
    """Return the other scores of our tables of organs, by name.

    Args:
        class_names: as in :func:`key_organ_dice`.
        pred: as there.
        label: as there; a MetaTensor, whose affine says how large voxels are.

    Returns:
        ``hd95_mm``: the 95th percentile Hausdorff distance, see :class:`OrganDistance`, averaged as Dice is.
    """
    metric = OrganDistance(len(class_names) if class_names else None)
    return {DISTANCE: IgniteMetricHandler(metric_fn=metric, output_transform=from_engine([pred, label]))}


def organ_columns(class_names: Sequence[str], key_metric: str = KEY) -> dict[str, list[str]]:
    """Return the names of the columns that each metric has in ``metrics_per_case.csv``, for the ``ScoresHandler``.

    Args:
        class_names: name of each class, the background first.
        key_metric: what :func:`key_organ_dice` is called.

    Example:
        >>> organ_columns(["background", "liver", "left kidney"])["hd95_mm"]
        ['hd95_mm_liver', 'hd95_mm_left_kidney']
    """
    organs = [name.replace(" ", "_") for name in class_names[1:]]
    return {key_metric: [f"dice_{name}" for name in organs], DISTANCE: [f"{DISTANCE}_{name}" for name in organs]}
