# SPDX-License-Identifier: Apache-2.0
"""Dictionary transforms (``...d``) for MONAI pipelines, with their array twins.

Whatever is random draws from MONAI's ``self.R``: ``set_random_state`` on the surrounding ``Compose`` fixes every
outcome, and the global generators are neither read nor advanced.
"""

from __future__ import annotations

from fewlabel.transforms.color import (
    RandColorJitter,
    RandColorJitterd,
    RandGaussianBlur,
    RandGaussianBlurd,
    RandGrayscale,
    RandGrayscaled,
)
from fewlabel.transforms.detections import DetectionRules
from fewlabel.transforms.geometry import RandWarp, RandWarpd, warp, warp_matrix
from fewlabel.transforms.gridmask import RandGridMask, RandGridMaskd, grid_mask
from fewlabel.transforms.instance_files import InstanceFiles
from fewlabel.transforms.instance_rules import InstanceRules
from fewlabel.transforms.instances import Instances, InstancesFromLogitsd, instances_from_logits
from fewlabel.transforms.labels import MapLabels, MapLabelsd, parse_label_map
from fewlabel.transforms.partial_labels import LabelsPresentd, RandFlipPairsd
from fewlabel.transforms.pseudolabels import (
    CleanMaskd,
    OpticalDensityd,
    OtsuWatershedd,
    Peaksd,
    SelfActivationMapd,
    SemanticClustersd,
    StainClassesd,
    StainDensitiesd,
    VoronoiTargetsd,
)
from fewlabel.transforms.regions import AddRegionsd, spacing_of
from fewlabel.transforms.rgb import ToRGB, ToRGBd
from fewlabel.transforms.save_dicom_seg import SaveDicomSegd
from fewlabel.transforms.save_instances import SaveInstancesd
from fewlabel.transforms.save_overlay import SaveOverlayd, read_picture
from fewlabel.transforms.strong import IMAGENET_MEAN, IMAGENET_STD, StrongAugmentd
from fewlabel.transforms.two_views import TwoViewsd
from fewlabel.transforms.uncertainty import BinaryEntropy, BinaryEntropyd

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AddRegionsd",
    "BinaryEntropy",
    "BinaryEntropyd",
    "CleanMaskd",
    "DetectionRules",
    "InstanceFiles",
    "InstanceRules",
    "Instances",
    "InstancesFromLogitsd",
    "LabelsPresentd",
    "MapLabels",
    "MapLabelsd",
    "OpticalDensityd",
    "OtsuWatershedd",
    "Peaksd",
    "RandColorJitter",
    "RandColorJitterd",
    "RandFlipPairsd",
    "RandGaussianBlur",
    "RandGaussianBlurd",
    "RandGrayscale",
    "RandGrayscaled",
    "RandGridMask",
    "RandGridMaskd",
    "RandWarp",
    "RandWarpd",
    "SaveDicomSegd",
    "SaveInstancesd",
    "SaveOverlayd",
    "SelfActivationMapd",
    "SemanticClustersd",
    "StainClassesd",
    "StainDensitiesd",
    "StrongAugmentd",
    "ToRGB",
    "ToRGBd",
    "TwoViewsd",
    "VoronoiTargetsd",
    "grid_mask",
    "instances_from_logits",
    "parse_label_map",
    "read_picture",
    "spacing_of",
    "warp",
    "warp_matrix",
]
