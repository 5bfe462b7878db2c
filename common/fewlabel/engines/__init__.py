# SPDX-License-Identifier: Apache-2.0
"""Trainers on MONAI's and ignite's engines, the steps that they run, and the runner of stages."""

from __future__ import annotations

from fewlabel.engines.pseudo_masks import PseudoMaskWriter, VoronoiWriter
from fewlabel.engines.region_examples import RegionExamples
from fewlabel.engines.stage import Stage
from fewlabel.engines.stage_examples import StageExamples
from fewlabel.engines.steps import (
    ContrastivePretrainingStep,
    CrossPseudoSupervisionStep,
    MeanTeacherStep,
    MinMaxSimilarityStep,
    ProxyTaskStep,
    SupervisedStep,
    TrainingStep,
    TwinStep,
)
from fewlabel.engines.trainer import StreamTrainer
from fewlabel.engines.whole_image import WholeImageSegmenter

__all__ = [
    "ContrastivePretrainingStep",
    "CrossPseudoSupervisionStep",
    "MeanTeacherStep",
    "MinMaxSimilarityStep",
    "ProxyTaskStep",
    "PseudoMaskWriter",
    "RegionExamples",
    "Stage",
    "StageExamples",
    "StreamTrainer",
    "SupervisedStep",
    "TrainingStep",
    "TwinStep",
    "VoronoiWriter",
    "WholeImageSegmenter",
]
