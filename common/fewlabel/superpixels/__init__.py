# SPDX-License-Identifier: Apache-2.0
"""Regions of images: superpixels kept on disk, controls that know nothing of the image, and what they can reach.

:func:`region_map` gives any of them by one key, with sizes in millimeters and cut to the body.
"""

from __future__ import annotations

from fewlabel.superpixels.body import body_mask
from fewlabel.superpixels.ceiling import region_ceiling
from fewlabel.superpixels.controls import grid_regions, random_regions
from fewlabel.superpixels.regions import KINDS, RegionMap, region_map
from fewlabel.superpixels.segment import felzenszwalb

__all__ = [
    "KINDS",
    "RegionMap",
    "body_mask",
    "felzenszwalb",
    "grid_regions",
    "random_regions",
    "region_ceiling",
    "region_map",
]
