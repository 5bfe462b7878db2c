# SPDX-License-Identifier: Apache-2.0
"""Semantic clustering: pixels of an image and its activation map in piles, one of which are the nuclei."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewlabel.kernels.kmeans import kmeans
from fewlabel.pseudolabels.cluster_rules import ClusterMeans, Rule, rule_of
from fewlabel.pseudolabels.colormap import jet
from fewlabel.pseudolabels.stains import optical_density, stain_densities

Features = Literal["scalar", "sum", "released"]
BETA = 2.5
EIGHT_BIT_HALF = 0.5 / 255


def semantic_clusters(
    images: Tensor,
    maps: Tensor | None = None,
    clusters: int = 3,
    beta: float = BETA,
    rule: str | Rule = "darkest",
    features: Features = "scalar",
    restarts: int = 10,
    iterations: int = 20,
    tolerance: float = EIGHT_BIT_HALF,
    seed: int = 0,
) -> Tensor:
    r"""Return the pseudo mask: the pixels of the cluster that a rule takes for the nuclei.

    Pixels are clustered by K-means on features of map and colors:

    .. math:: \min_{S_1..S_K} \sum_k \sum_{f \in S_k} \lVert f - c_k \rVert^2

    Args:
        images: (B, 3, H, W), floating, RGB in [0, 1].
        maps: (B, 1, H, W) in [0, 1], of :func:`fewlabel.pseudolabels.self_activation_map`; None clusters by the colors
            alone (beta = infinity).
        clusters: K.
        beta: weight of the colors; not used without maps.
        rule: which cluster are the nuclei: ``"darkest"``, ``"bluest"``, ``"hottest"``, ``"released"``, or a function
            of :class:`~fewlabel.pseudolabels.ClusterMeans`.
        features: see :func:`fused_features`.
        restarts: starts of K-means, of which the best counts.
        iterations: most iterations of each.
        tolerance: movement of centers at which it stops, in the unit of the features.
        seed: of K-means. An image's mask does not depend on the other images of the batch.

    Returns:
        (B, 1, H, W) uint8, 1 on nuclei. Every image with pixels gets some, also one without nuclei.

    Raises:
        ValueError: shapes do not fit; there is no such rule or form of features.

    References:
        Chen et al., Exploring unsupervised cell recognition with prior self-activation maps, MICCAI 2023,
        arXiv:2308.11144, section 2.2. K = 3, 10 restarts, 20 iterations and the tolerance are the released code's,
        which seeds at random where we use k-means++. beta = 2.5 is recalled of the paper (4 for immunohistochemistry);
        the code has 1. Released behavior: ``beta=1, rule="released", features="released"``.

    Example:
        >>> image = torch.full((1, 3, 4, 4), 0.9)
        >>> image[..., :2, :2] = torch.tensor([0.3, 0.2, 0.5]).view(3, 1, 1)
        >>> semantic_clusters(image, clusters=2)[0, 0].tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    choose = rule_of(rule)
    labels, means = cluster_pixels(images, maps, clusters, beta, features, restarts, iterations, tolerance, seed)
    return (labels == choose(means).view(-1, 1, 1, 1)).to(torch.uint8)


def cluster_pixels(
    images: Tensor,
    maps: Tensor | None = None,
    clusters: int = 3,
    beta: float = BETA,
    features: Features = "scalar",
    restarts: int = 10,
    iterations: int = 20,
    tolerance: float = EIGHT_BIT_HALF,
    seed: int = 0,
) -> tuple[Tensor, ClusterMeans]:
    """Cluster the pixels of each image, without choosing: the first half of :func:`semantic_clusters`.

    Args:
        images: as there; so are all other arguments.
        maps: (B, 1, H, W) or None.
        clusters: K.
        beta: weight of the colors.
        features: see :func:`fused_features`.
        restarts: starts of K-means.
        iterations: most iterations of each.
        tolerance: movement of centers at which it stops.
        seed: of K-means.

    Returns:
        Clusters (B, 1, H, W) int64, numbers in no particular order, and their means, by which a rule may choose.

    Raises:
        ValueError: shapes do not fit; there is no such form of features.
    """
    fused = fused_features(images, maps, beta, features)
    space = images.shape[2:]
    found = kmeans(
        fused.flatten(2).transpose(1, 2),
        clusters,
        restarts=restarts,
        iterations=iterations,
        tolerance=tolerance,
        seed=seed,
    )
    density = optical_density(images.float()).mean(dim=1, keepdim=True)
    hematoxylin = stain_densities(images.float())[:, :1]
    heat = None if maps is None else cluster_means(maps, found.labels, clusters)[..., 0]
    dark, blue = (cluster_means(values, found.labels, clusters)[..., 0] for values in (density, hematoxylin))
    means = ClusterMeans(dark, blue, heat, found.centers)
    return found.labels.view(-1, 1, *space), means


def fused_features(
    images: Tensor, maps: Tensor | None = None, beta: float = BETA, features: Features = "scalar"
) -> Tensor:
    r"""Return what is clustered: map and colors of each pixel.

    Args:
        images: (B, 3, H, W), floating, RGB in [0, 1].
        maps: (B, 1, H, W) in [0, 1]; None for the colors alone.
        beta: weight of the colors beside a map.
        features: with a map: ``"scalar"``, four numbers :math:`[I_{am}, \beta R, \beta G, \beta B]`; ``"sum"``, the
            paper's three, :math:`I_{am} + \beta I_{raw}`; ``"released"``, the released code's three,
            :math:`\text{JET}(I_{am})` in the order blue, green, red :math:`+ \beta I_{raw}` in the order red, green,
            blue.

    Returns:
        (B, D, H, W) float32.

    Raises:
        ValueError: shapes do not fit; there is no such form.

    Note:
        In a sum a map that is high where the image is dark cancels the contrast that the image has; beside each other
        the two cannot. That is why ``"scalar"`` is the default.

    References:
        Chen et al., arXiv:2308.11144, section 2.2, for ``"sum"``; the function ``sgg`` of the released code for
        ``"released"``, which multiplies all by 255.
    """
    if features not in ("scalar", "sum", "released"):
        raise ValueError(f"features is {features!r}, expected 'scalar', 'sum' or 'released'")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images (B, 3, H, W), got {tuple(images.shape)}")
    colors = images.as_subclass(Tensor).float()
    if maps is None:
        return colors
    if maps.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(f"expected maps {(len(images), 1, *images.shape[2:])}, got {tuple(maps.shape)}")
    heat = maps.as_subclass(Tensor).float()
    if features == "scalar":
        return torch.cat([heat, beta * colors], dim=1)
    return (heat if features == "sum" else jet(heat)) + beta * colors


def cluster_means(values: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Return means over the pixels of each cluster.

    Args:
        values: (B, C, *space), floating.
        labels: (B, N) int64, N the pixels of an image.
        clusters: K.

    Returns:
        (B, K, C) float64, nan where a cluster is empty.
    """
    wide = values.as_subclass(Tensor).flatten(2).double()
    means = []
    for k in range(clusters):
        inside = (labels == k)[:, None]
        means.append(torch.where(inside, wide, 0).sum(dim=2) / inside.sum(dim=2))
    return torch.stack(means, dim=1)
