# SPDX-License-Identifier: Apache-2.0
"""The classical baseline: Otsu's threshold on hematoxylin, split by the watershed of distances."""

from __future__ import annotations

import numpy as np
import torch
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed
from torch import Tensor

from fewlabel.kernels.distance import nearest_seed
from fewlabel.pseudolabels.clean import clean_mask
from fewlabel.pseudolabels.stains import Vectors, stain_densities


def otsu_mask(images: Tensor, min_object_px: int = 100, max_hole_px: int = 63, vectors: Vectors = "psm") -> Tensor:
    """Return the pixels with more hematoxylin than Otsu's threshold of their image.

    Args:
        images: (B, 3, H, W), floating, RGB in [0, 1].
        min_object_px: see :func:`fewlabel.pseudolabels.clean_mask`.
        max_hole_px: see :func:`fewlabel.pseudolabels.clean_mask`.
        vectors: see :func:`fewlabel.pseudolabels.stain_densities`.

    Returns:
        (B, 1, H, W) uint8, 1 on nuclei; nothing in an image of one color.

    Raises:
        ValueError: images are not (B, 3, H, W).

    References:
        Otsu, A threshold selection method from gray-level histograms, IEEE TSMC 9(1), 1979 (256 bins). A baseline; not
        part of PSM.
    """
    if images.ndim != 4:
        raise ValueError(f"expected RGB images (B, 3, H, W), got {tuple(images.shape)}")
    density = stain_densities(images.detach().as_subclass(Tensor).float(), vectors)[:, :1]
    levels = [float(threshold_otsu(image.cpu().numpy())) for image in density]
    threshold = torch.tensor(levels, device=density.device).view(-1, 1, 1, 1)
    return clean_mask(density > threshold, min_object_px, max_hole_px)


def otsu_watershed(
    images: Tensor,
    min_object_px: int = 100,
    max_hole_px: int = 63,
    min_distance_px: int = 6,
    vectors: Vectors = "psm",
) -> Tensor:
    """Return nuclei one by one: :func:`otsu_mask`, split by the watershed of the distance to its background.

    Args:
        images: (B, 3, H, W), floating, RGB in [0, 1].
        min_object_px: see :func:`fewlabel.pseudolabels.clean_mask`.
        max_hole_px: see :func:`fewlabel.pseudolabels.clean_mask`.
        min_distance_px: between the maxima of distance from which basins grow.
        vectors: see :func:`fewlabel.pseudolabels.stain_densities`.

    Returns:
        (B, 1, H, W) int32: 0 background, each nucleus its own number.

    Raises:
        ValueError: images are not (B, 3, H, W).

    References:
        scikit-image's ``watershed`` and ``peak_local_max``. A baseline; not part of PSM.
    """
    mask = otsu_mask(images, min_object_px, max_hole_px, vectors).cpu()
    distance, _ = nearest_seed(mask == 0, 2)
    labels = [
        _basins(d.numpy(), m.numpy() > 0, min_distance_px) for d, m in zip(distance[:, 0], mask[:, 0], strict=True)
    ]
    stacked = np.stack(labels) if labels else np.empty(mask[:, 0].shape, np.int32)
    return torch.from_numpy(stacked)[:, None].to(images.device)


def _basins(distance: np.ndarray, mask: np.ndarray, min_distance: int) -> np.ndarray:
    """Number the basins of minus the distance (H, W) inside a mask."""
    finite = np.where(np.isfinite(distance), distance, 1.0)  # without background all pixels are one object
    tops = peak_local_max(finite, min_distance=min_distance, labels=mask.astype(np.int32), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    return watershed(-finite, markers, mask=mask).astype(np.int32)
