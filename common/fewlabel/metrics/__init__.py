# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and its own under the names that our tables use.

Instances: :func:`instance_overlap` counts once, and every metric is a function of what it returns. Detection: points,
matched one to one. ``key_*`` and ``*_scores`` are both for MONAI's evaluators.
"""

from __future__ import annotations

from fewlabel.metrics.binary import GlobalDice, binary_scores, key_dice
from fewlabel.metrics.detection import (
    DetectionScores,
    Matches,
    Objects,
    class_detection_scores,
    detection_scores,
    match_points,
    objects_of,
)
from fewlabel.metrics.instances import (
    PanopticQuality,
    aggregated_jaccard,
    aggregated_jaccard_plus,
    object_dice,
    object_f1,
    panoptic_quality,
    pixel_f1,
    pixel_iou,
)
from fewlabel.metrics.label_maps import (
    ClassDetectionMetric,
    DetectionMetric,
    InstanceMetric,
    class_scores,
    detection_columns,
    instance_scores,
    key_aji,
    key_class_f1,
)
from fewlabel.metrics.organs import OrganDistance, key_organ_dice, organ_columns, organ_scores
from fewlabel.metrics.overlap import Overlap, instance_overlap
from fewlabel.metrics.ranking import auc

__all__ = [
    "ClassDetectionMetric",
    "DetectionMetric",
    "DetectionScores",
    "GlobalDice",
    "InstanceMetric",
    "Matches",
    "Objects",
    "OrganDistance",
    "Overlap",
    "PanopticQuality",
    "aggregated_jaccard",
    "aggregated_jaccard_plus",
    "auc",
    "binary_scores",
    "class_detection_scores",
    "class_scores",
    "detection_columns",
    "detection_scores",
    "instance_overlap",
    "instance_scores",
    "key_aji",
    "key_class_f1",
    "key_dice",
    "key_organ_dice",
    "match_points",
    "object_dice",
    "object_f1",
    "objects_of",
    "organ_columns",
    "organ_scores",
    "panoptic_quality",
    "pixel_f1",
    "pixel_iou",
]
