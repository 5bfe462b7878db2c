# SPDX-License-Identifier: Apache-2.0
"""Trainers on MONAI's and ignite's engines, the steps that they run, and the runner of stages."""

from __future__ import annotations

from fewlabel.engines.stage import Stage
from fewlabel.engines.steps import (
    ContrastivePretrainingStep,
    CrossPseudoSupervisionStep,
    MeanTeacherStep,
    MinMaxSimilarityStep,
    SupervisedStep,
    TrainingStep,
)
from fewlabel.engines.trainer import StreamTrainer

__all__ = [
    "ContrastivePretrainingStep",
    "CrossPseudoSupervisionStep",
    "MeanTeacherStep",
    "MinMaxSimilarityStep",
    "Stage",
    "StreamTrainer",
    "SupervisedStep",
    "TrainingStep",
]
