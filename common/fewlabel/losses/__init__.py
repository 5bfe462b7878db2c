# SPDX-License-Identifier: Apache-2.0
"""Loss functions as modules: structure, min-max similarity, consistency, pixels with classes, Voronoi labels."""

from __future__ import annotations

from fewlabel.losses.consistency import CrossPseudoLoss, ProbabilityMSELoss, sigmoid_ramp_up
from fewlabel.losses.min_max_similarity import MinMaxSimilarityLoss
from fewlabel.losses.pixel_cross_entropy import PixelCrossEntropyLoss
from fewlabel.losses.structure import StructureLoss, box_mean
from fewlabel.losses.voronoi import VoronoiLoss

__all__ = [
    "CrossPseudoLoss",
    "MinMaxSimilarityLoss",
    "PixelCrossEntropyLoss",
    "ProbabilityMSELoss",
    "StructureLoss",
    "VoronoiLoss",
    "box_mean",
    "sigmoid_ramp_up",
]
