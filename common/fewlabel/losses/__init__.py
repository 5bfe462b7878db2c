# SPDX-License-Identifier: Apache-2.0
"""Loss functions as modules: of pixels, of predictions that shall agree, and of contrast."""

from __future__ import annotations

from fewlabel.losses.consistency import CrossPseudoLoss, ProbabilityMSELoss, sigmoid_ramp_up
from fewlabel.losses.min_max_similarity import MinMaxSimilarityLoss
from fewlabel.losses.partial_labels import PartialLabelLoss
from fewlabel.losses.pixel_cross_entropy import PixelCrossEntropyLoss
from fewlabel.losses.queue_contrast import PredictionLoss, QueueContrastLoss
from fewlabel.losses.region_contrast import RegionContrastLoss, RegionPoints, gather_points
from fewlabel.losses.structure import StructureLoss, box_mean
from fewlabel.losses.voronoi import VoronoiLoss

__all__ = [
    "CrossPseudoLoss",
    "MinMaxSimilarityLoss",
    "PartialLabelLoss",
    "PixelCrossEntropyLoss",
    "PredictionLoss",
    "ProbabilityMSELoss",
    "QueueContrastLoss",
    "RegionContrastLoss",
    "RegionPoints",
    "StructureLoss",
    "VoronoiLoss",
    "box_mean",
    "gather_points",
    "sigmoid_ramp_up",
]
