# SPDX-License-Identifier: Apache-2.0
"""Loss functions as modules: structure, min-max similarity, consistency."""

from __future__ import annotations

from fewlabel.losses.consistency import CrossPseudoLoss, ProbabilityMSELoss, sigmoid_ramp_up
from fewlabel.losses.min_max_similarity import MinMaxSimilarityLoss
from fewlabel.losses.structure import StructureLoss, box_mean

__all__ = [
    "CrossPseudoLoss",
    "MinMaxSimilarityLoss",
    "ProbabilityMSELoss",
    "StructureLoss",
    "box_mean",
    "sigmoid_ramp_up",
]
