# SPDX-License-Identifier: Apache-2.0
"""Training steps: what one iteration of each method computes."""

from __future__ import annotations

from fewlabel.engines.steps.base import TrainingStep, TwinStep, labeled_images, labeled_pairs, unlabeled_images
from fewlabel.engines.steps.cross_pseudo_supervision import CrossPseudoSupervisionStep
from fewlabel.engines.steps.mean_teacher import MeanTeacherStep
from fewlabel.engines.steps.min_max_similarity import MinMaxSimilarityStep
from fewlabel.engines.steps.proxy_task import ProxyTaskStep
from fewlabel.engines.steps.region_contrast import ContrastivePretrainingStep
from fewlabel.engines.steps.supervised import SupervisedStep

__all__ = [
    "ContrastivePretrainingStep",
    "CrossPseudoSupervisionStep",
    "MeanTeacherStep",
    "MinMaxSimilarityStep",
    "ProxyTaskStep",
    "SupervisedStep",
    "TrainingStep",
    "TwinStep",
    "labeled_images",
    "labeled_pairs",
    "unlabeled_images",
]
