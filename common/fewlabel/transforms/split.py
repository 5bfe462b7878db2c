# SPDX-License-Identifier: Apache-2.0
"""Split a component that several nuclei share, at its necks or at the dips of its probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from fewlabel.transforms.instance_rules import InstanceRules


def split_component(
    mask: NDArray[np.bool_], probability: NDArray[np.floating[Any]], rules: InstanceRules
) -> NDArray[np.int32]:
    """Divide one component among its summits.

    The score s is the Euclidean distance to the nearest pixel outside (beyond the border of the array there is no
    outside), or the probability; smoothed. A summit is a regional maximum of the reconstruction of s - h under s, so
    each stands h or more above the saddle to a higher one. A watershed of -s gives each pixel to a summit.

    Args:
        mask: (H, W), a single 8-connected component, with a pixel of margin where the image goes on.
        probability: (H, W), read inside the mask only.
        rules: ``split`` (not ``none``), ``depth`` = h and ``split_sigma_px``.

    Returns:
        (H, W) int32: 1, 2, ... inside the mask, 0 outside. Deterministic.

    References:
        Soille, Morphological image analysis, 2003, section 6.3.5 (h-maxima as markers of a watershed).

    Example:
        >>> y, x = np.mgrid[:19, :31]
        >>> discs = ((y - 9) ** 2 + (x - 9) ** 2 <= 64) | ((y - 9) ** 2 + (x - 21) ** 2 <= 64)
        >>> split_component(discs, discs.astype(float), InstanceRules(split="watershed"))[9, [2, 9, 21, 28]].tolist()
        [1, 1, 2, 2]
    """
    if rules.split == "watershed":
        if mask.all():  # the whole image: no border to be far from
            return mask.astype(np.int32)
        score = ndimage.distance_transform_edt(mask)
    else:
        score = np.where(mask, probability, 0).astype(np.float64)
    if rules.split_sigma_px > 0:
        score = ndimage.gaussian_filter(score, rules.split_sigma_px, mode="nearest")
    score[~mask] = 0
    flooded = reconstruction(score - rules.depth, score, method="dilation")
    summits = ndimage.label(local_maxima(np.where(mask, flooded, -np.inf)) & mask, np.ones((3, 3)))[0]
    if summits.max() < 2:
        return mask.astype(np.int32)
    return watershed(-score, summits, mask=mask, connectivity=2).astype(np.int32)
