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
from fewlabel.transforms.geometry import RandWarp, RandWarpd, warp, warp_matrix
from fewlabel.transforms.gridmask import RandGridMask, RandGridMaskd, grid_mask
from fewlabel.transforms.labels import MapLabels, MapLabelsd, parse_label_map
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
from fewlabel.transforms.rgb import ToRGB, ToRGBd
from fewlabel.transforms.save_overlay import SaveOverlayd, read_picture
from fewlabel.transforms.strong import IMAGENET_MEAN, IMAGENET_STD, StrongAugmentd
from fewlabel.transforms.uncertainty import BinaryEntropy, BinaryEntropyd

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BinaryEntropy",
    "BinaryEntropyd",
    "CleanMaskd",
    "MapLabels",
    "MapLabelsd",
    "OpticalDensityd",
    "OtsuWatershedd",
    "Peaksd",
    "RandColorJitter",
    "RandColorJitterd",
    "RandGaussianBlur",
    "RandGaussianBlurd",
    "RandGrayscale",
    "RandGrayscaled",
    "RandGridMask",
    "RandGridMaskd",
    "RandWarp",
    "RandWarpd",
    "SaveOverlayd",
    "SelfActivationMapd",
    "SemanticClustersd",
    "StainClassesd",
    "StainDensitiesd",
    "StrongAugmentd",
    "ToRGB",
    "ToRGBd",
    "VoronoiTargetsd",
    "grid_mask",
    "parse_label_map",
    "read_picture",
    "warp",
    "warp_matrix",
]
