# SPDX-License-Identifier: Apache-2.0
"""Loss functions as modules: structure, min-max similarity, consistency, contrast of regions and images."""

from __future__ import annotations

from fewlabel.losses.consistency import CrossPseudoLoss, ProbabilityMSELoss, sigmoid_ramp_up
from fewlabel.losses.min_max_similarity import MinMaxSimilarityLoss
from fewlabel.losses.queue_contrast import PredictionLoss, QueueContrastLoss
from fewlabel.losses.region_contrast import RegionContrastLoss, RegionPoints, gather_points
from fewlabel.losses.structure import StructureLoss, box_mean

__all__ = [
    "CrossPseudoLoss",
    "MinMaxSimilarityLoss",
    "PredictionLoss",
    "ProbabilityMSELoss",
    "QueueContrastLoss",
    "RegionContrastLoss",
    "RegionPoints",
    "StructureLoss",
    "box_mean",
    "gather_points",
    "sigmoid_ramp_up",
]
