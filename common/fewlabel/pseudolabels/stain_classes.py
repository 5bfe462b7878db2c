# SPDX-License-Identifier: Apache-2.0
"""Positive and negative nuclei of immunohistochemistry, by which stain their cluster took up."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.pseudolabels.clean import clean_mask
from fewlabel.pseudolabels.clustering import Features, cluster_means, cluster_pixels
from fewlabel.pseudolabels.stains import Vectors, stain_densities

HEMATOXYLIN, DAB = 0, 2


def stain_classes(
    images: Tensor,
    maps: Tensor | None = None,
    clusters: int = 3,
    beta: float = 4.0,
    min_gap: float = 0.15,
    min_object_px: int = 30,
    max_hole_px: int = 63,
    features: Features = "scalar",
    vectors: Vectors = "psm",
    seed: int = 0,
) -> Tensor:
    """Return pseudo masks of positive (brown, DAB) and negative (blue, hematoxylin) nuclei.

    Pixels are clustered as in :func:`fewlabel.pseudolabels.semantic_clusters`. The cluster of lowest optical density is
    background. Of the others the one with most DAB is positive, and of those that remain the one with most hematoxylin
    is negative. Where the two differ by less than ``min_gap`` in DAB, the tile has one class only: the darker of them,
    positive if it holds more DAB than hematoxylin.

    Args:
        images: (B, 3, H, W), floating, RGB in [0, 1].
        maps: (B, 1, H, W) in [0, 1], or None for colors alone.
        clusters: K, 3 at least.
        beta: weight of the colors beside a map.
        min_gap: of mean DAB between the two clusters, in units of optical density (log10).
        min_object_px: objects of fewer pixels are removed from each class.
        max_hole_px: holes of at most so many pixels are filled.
        features: see :func:`fewlabel.pseudolabels.fused_features`.
        vectors: see :func:`fewlabel.pseudolabels.stain_densities`.
        seed: of K-means.

    Returns:
        (B, 2, H, W) uint8: positive, negative. The two do not overlap.

    Raises:
        ValueError: fewer than 3 clusters, and as in :func:`fewlabel.pseudolabels.cluster_pixels`.

    References:
        Ours: the code of PSM's experiment on BCData is not public, and the paper (arXiv:2308.11144) says neither K nor
        how clusters get their names; beta = 4 and local maxima as cells are recalled of it.
    """
    if clusters < 3:
        raise ValueError(f"expected at least 3 clusters (background, positive, negative), got {clusters}")
    labels, means = cluster_pixels(images, maps, clusters, beta, features, seed=seed)
    stains = cluster_means(stain_densities(images.float(), vectors), labels.flatten(1), clusters)
    positive, negative = _named(means.density, stains[..., HEMATOXYLIN], stains[..., DAB], min_gap)
    chosen = torch.stack([positive, negative], dim=1)[:, :, None, None]
    masks = clean_mask(labels == chosen, min_object_px, max_hole_px)
    masks[:, 1] &= 1 - masks[:, 0]  # a filled hole may hold a nucleus of the other class
    return masks


def _named(density: Tensor, hematoxylin: Tensor, dab: Tensor, min_gap: float) -> tuple[Tensor, Tensor]:
    """Return the clusters (B,) of positive and negative nuclei from (B, K) means; -1 where there is none."""
    dark, blue, brown = (torch.nan_to_num(x, nan=-torch.inf) for x in (density, hematoxylin, dab))
    background = torch.nan_to_num(density, nan=torch.inf).argmin(dim=1, keepdim=True)
    positive = brown.scatter(1, background, -torch.inf).argmax(dim=1, keepdim=True)
    used = torch.cat([background, positive], dim=1)
    negative = blue.scatter(1, used, -torch.inf).argmax(dim=1, keepdim=True)
    is_single = brown.gather(1, positive) - brown.gather(1, negative) < min_gap
    darker = torch.where(dark.gather(1, positive) >= dark.gather(1, negative), positive, negative)
    is_brown = brown.gather(1, darker) > blue.gather(1, darker)
    none = torch.full_like(positive, -1)
    positive, negative = (
        torch.where(is_single, torch.where(is_brown, darker, none), positive)[:, 0],
        torch.where(is_single, torch.where(is_brown, none, darker), negative)[:, 0],
    )
    return positive, negative
