# SPDX-License-Identifier: Apache-2.0
"""Segmentation without training as modules, so that what scores a network scores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fewlabel.pseudolabels.clean import clean_mask
from fewlabel.pseudolabels.cluster_rules import Rule
from fewlabel.pseudolabels.clustering import BETA, Features, semantic_clusters
from fewlabel.pseudolabels.self_activation import Order, self_activation_map
from fewlabel.pseudolabels.stain_classes import stain_classes
from fewlabel.pseudolabels.stains import Vectors, optical_density, stain_densities
from fewlabel.pseudolabels.watershed import otsu_mask

CERTAIN = 5.0  # softmax gives the class of a pixel 0.99995


class OtsuSegmenter(nn.Module):
    """Otsu's threshold on hematoxylin; see :func:`fewlabel.pseudolabels.otsu_mask`.

    Args:
        min_object_px: objects of fewer pixels are removed.
        max_hole_px: holes of at most so many pixels are filled.
        vectors: see :func:`fewlabel.pseudolabels.stain_densities`.
    """

    def __init__(self, min_object_px: int = 100, max_hole_px: int = 63, vectors: Vectors = "psm") -> None:
        super().__init__()
        self.min_object_px, self.max_hole_px, self.vectors = min_object_px, max_hole_px, vectors

    def forward(self, images: Tensor) -> Tensor:
        """Segment images.

        Args:
            images: (B, 3, H, W), floating, RGB in [0, 1], **not normalized**.

        Returns:
            (B, 2, H, W) float32 logits of background and nucleus, +-5.
        """
        return _as(images, mask_logits(otsu_mask(images, self.min_object_px, self.max_hole_px, self.vectors)))


class ClusterSegmenter(nn.Module):
    """The pseudo mask itself: clusters of colors, with an activation map beside them if there is a network.

    Args:
        score_network: images (B, 3, H, W) to scores (B, 1); None clusters colors alone. It has seen images in [0, 1],
            as this module does.
        layers: names of the network's layers; None takes its ``shallow_layers``.
        order: see :func:`fewlabel.pseudolabels.self_activation_map`. The paper's ``"relu_then_minmax"`` can leave
            nothing of a map whose sign was fixed.
        toward: what fixes the sign of maps: optical ``"density"``, that of ``"hematoxylin"``, or None, nothing, as in
            the released code.
        margin_px: see :func:`fewlabel.pseudolabels.self_activation_map`; at most the image's shorter side - 1 is used.
        clusters: see :func:`fewlabel.pseudolabels.semantic_clusters`; so are the next three.
        beta: weight of the colors.
        rule: which cluster are the nuclei.
        features: form of map and colors.
        min_object_px: see :func:`fewlabel.pseudolabels.clean_mask`; so are the next two.
        max_hole_px: holes up to this size are filled.
        released_cleaning: filter as the released code.
        seed: of K-means.

    Raises:
        ValueError: the network has no ``shallow_layers`` and none are named.
    """

    classes = 2

    def __init__(
        self,
        score_network: nn.Module | None = None,
        layers: Sequence[str] | None = None,
        order: Order = "minmax_then_mean",
        toward: Literal["density", "hematoxylin"] | None = "density",
        margin_px: int = 32,
        clusters: int = 3,
        beta: float = BETA,
        rule: str | Rule = "darkest",
        features: Features = "scalar",
        min_object_px: int = 100,
        max_hole_px: int = 63,
        released_cleaning: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.score_network = score_network
        self.layers = list(layers if layers is not None else getattr(score_network, "shallow_layers", []))
        if score_network is not None and not self.layers:
            raise ValueError(f"{type(score_network).__name__} has no shallow_layers: name its layers")
        self.order: Order = order
        self.toward, self.margin_px = toward, margin_px
        self.clusters, self.beta, self.rule, self.seed = clusters, beta, rule, seed
        self.features: Features = features
        self.min_object_px, self.max_hole_px, self.released_cleaning = min_object_px, max_hole_px, released_cleaning

    def forward(self, images: Tensor) -> Tensor:
        """Segment images.

        Args:
            images: (B, 3, H, W), floating, RGB in [0, 1], **not normalized**.

        Returns:
            (B, K, H, W) float32 logits of the background and the classes of the mask, +-5.
        """
        return _as(images, mask_logits(self.mask(images), self.classes))

    def maps(self, images: Tensor) -> Tensor | None:
        """Return the activation maps (B, 1, H, W) in [0, 1] of images, None without a network.

        Args:
            images: as in :meth:`forward`.
        """
        if self.score_network is None:
            return None
        toward = {
            None: lambda: None,
            "density": lambda: optical_density(images).mean(dim=1, keepdim=True),
            "hematoxylin": lambda: stain_densities(images)[:, :1],
        }[self.toward]()
        margin = min(self.margin_px, min(images.shape[2:]) - 1)
        return self_activation_map(
            self.score_network, images, self.layers, order=self.order, toward=toward, margin_px=margin
        )

    def mask(self, images: Tensor) -> Tensor:
        """Return the clean pseudo mask (B, 1, H, W) uint8 of images.

        Args:
            images: as in :meth:`forward`.
        """
        raw = semantic_clusters(
            images, self.maps(images), self.clusters, self.beta, self.rule, self.features, seed=self.seed
        )
        return clean_mask(raw, self.min_object_px, self.max_hole_px, self.released_cleaning)


class StainSegmenter(ClusterSegmenter):
    """Pseudo masks of two classes, positive and negative cells; see :func:`fewlabel.pseudolabels.stain_classes`.

    Args:
        score_network: see :class:`ClusterSegmenter`; so are the next four.
        layers: names of the network's layers.
        order: of normalization.
        toward: what fixes the sign of maps.
        margin_px: mirrored pixels.
        clusters: see :func:`fewlabel.pseudolabels.stain_classes`; so are all others.
        beta: weight of the colors.
        min_gap: of DAB between the classes.
        features: form of map and colors.
        min_object_px: smaller objects are removed.
        max_hole_px: holes up to this size are filled.
        seed: of K-means.
    """

    classes = 3

    def __init__(
        self,
        score_network: nn.Module | None = None,
        layers: Sequence[str] | None = None,
        order: Order = "minmax_then_mean",
        toward: Literal["density", "hematoxylin"] | None = "density",
        margin_px: int = 32,
        clusters: int = 3,
        beta: float = 4.0,
        min_gap: float = 0.15,
        features: Features = "scalar",
        min_object_px: int = 30,
        max_hole_px: int = 63,
        seed: int = 0,
    ) -> None:
        super().__init__(score_network, layers, order, toward, margin_px, clusters, beta, features=features, seed=seed)
        self.min_gap, self.min_object_px, self.max_hole_px = min_gap, min_object_px, max_hole_px

    def mask(self, images: Tensor) -> Tensor:
        """Return pseudo masks (B, 1, H, W) uint8 of images: 0 background, 1 positive, 2 negative.

        Args:
            images: as in :meth:`forward`.
        """
        masks = stain_classes(
            images,
            self.maps(images),
            self.clusters,
            self.beta,
            self.min_gap,
            self.min_object_px,
            self.max_hole_px,
            self.features,
            seed=self.seed,
        )
        return masks[:, :1] + 2 * masks[:, 1:]


def mask_logits(mask: Tensor, classes: int = 2) -> Tensor:
    """Return logits that say what a mask says.

    Args:
        mask: (B, 1, H, W), class of each pixel, 0 the background.
        classes: K.

    Returns:
        (B, K, H, W) float32, +-5.

    Example:
        >>> import torch
        >>> mask_logits(torch.tensor([[[[0, 1]]]])).tolist()
        [[[[5.0, -5.0]], [[-5.0, 5.0]]]]
    """
    return CERTAIN * (2 * nn.functional.one_hot(mask[:, 0].long(), classes).movedim(-1, 1).float() - 1)


def _as(images: Tensor, logits: Tensor) -> Tensor:
    """Return logits as the kind of tensor that images are: what undoes transforms reads its record there."""
    return images.new_zeros(logits.shape, dtype=logits.dtype).copy_(logits)
