# SPDX-License-Identifier: Apache-2.0
"""Scores of a binary mask, each under a name that says how it is averaged."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric, DiceMetric, MAEMetric, MeanIoU
from torch import Tensor


class GlobalDice(CumulativeIterationMetric):
    """Dice over all pixels of all cases together: ``2 TP / (2 TP + FP + FN)``.

    Large objects weigh more than in the per-image mean; it is the figure that the released MMS code calls F1. Two
    empty sets agree perfectly: 1.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if y is None or y_pred.shape != y.shape:
            raise ValueError(
                f"expected masks of one shape, got {tuple(y_pred.shape)} and {y if y is None else y.shape}"
            )
        pred, truth = (y_pred > 0.5).flatten(1), (y > 0.5).flatten(1)
        counts = [pred & truth, pred & ~truth, ~pred & truth]
        return torch.stack([c.sum(1, dtype=torch.float64) for c in counts], dim=1)

    def aggregate(self) -> Tensor:
        """Return the Dice of everything seen since ``reset``, a float64 scalar in 0..1."""
        counts = self.get_buffer()
        if not isinstance(counts, Tensor):
            raise ValueError(f"no case was seen; the buffer holds {type(counts).__name__}")
        tp, fp, fn = counts.sum(0)
        both = 2 * tp + fp + fn
        return torch.where(both > 0, 2 * tp / both.clamp(min=1), torch.ones_like(both))


def key_dice(pred: str = "pred", label: str = "label") -> IgniteMetricHandler:
    """Mean over images of the Dice of binary masks; an empty mask on an empty truth counts 1.

    Args:
        pred: key of the prediction, binary, (1, *spatial).
        label: key of the truth, binary, (1, *spatial).
    """
    return IgniteMetricHandler(
        metric_fn=DiceMetric(include_background=True, ignore_empty=False), output_transform=from_engine([pred, label])
    )


def binary_scores(pred: str = "pred", prob: str = "prob", label: str = "label") -> dict[str, IgniteMetricHandler]:
    """Return the other scores of our binary tables, by name.

    Args:
        pred: key of the binary prediction.
        prob: key of the probabilities in 0..1.
        label: key of the binary truth.

    Returns:
        ``mean_iou`` (per image, then mean; empty on empty counts 1), ``global_dice`` (all pixels together),
        ``mae_probability`` and ``mae_mask`` (mean absolute error per image of probabilities and of the mask, mean).
    """
    masks, maps = from_engine([pred, label]), from_engine([prob, label])
    return {
        "mean_iou": IgniteMetricHandler(metric_fn=MeanIoU(ignore_empty=False), output_transform=masks),
        "global_dice": IgniteMetricHandler(metric_fn=GlobalDice(), output_transform=masks),
        "mae_probability": IgniteMetricHandler(metric_fn=MAEMetric(), output_transform=maps),
        "mae_mask": IgniteMetricHandler(metric_fn=MAEMetric(), output_transform=masks),
    }
