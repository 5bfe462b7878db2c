# SPDX-License-Identifier: Apache-2.0
"""Trainers on MONAI's and ignite's engines, the steps that they run, and the runner of stages."""

from __future__ import annotations

from fewlabel.engines.stage import Stage
from fewlabel.engines.steps import (
    CrossPseudoSupervisionStep,
    MeanTeacherStep,
    MinMaxSimilarityStep,
    SupervisedStep,
    TrainingStep,
)
from fewlabel.engines.trainer import StreamTrainer
from fewlabel.engines.whole_image import WholeImageSegmenter

__all__ = [
    "CrossPseudoSupervisionStep",
    "MeanTeacherStep",
    "MinMaxSimilarityStep",
    "Stage",
    "StreamTrainer",
    "SupervisedStep",
    "TrainingStep",
    "WholeImageSegmenter",
]
