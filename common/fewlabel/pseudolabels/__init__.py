# SPDX-License-Identifier: Apache-2.0
"""Pseudo-label generators: activation maps, stains, clustering, points, promptable models."""

from __future__ import annotations

from fewlabel.kernels.kmeans import kmeans
from fewlabel.pseudolabels.activation_maps import activation_maps, class_activation_maps
from fewlabel.pseudolabels.clean import clean_mask
from fewlabel.pseudolabels.cluster_rules import ClusterMeans, bluest, darkest, hottest, released
from fewlabel.pseudolabels.clustering import cluster_pixels, fused_features, semantic_clusters
from fewlabel.pseudolabels.colormap import jet
from fewlabel.pseudolabels.peaks import peaks
from fewlabel.pseudolabels.segmenters import ClusterSegmenter, OtsuSegmenter, StainSegmenter, mask_logits
from fewlabel.pseudolabels.self_activation import (
    fuse_layers,
    layer_maps,
    normalize_maps,
    orient_maps,
    resize_maps,
    self_activation_map,
)
from fewlabel.pseudolabels.stain_classes import stain_classes
from fewlabel.pseudolabels.stains import optical_density, stain_densities
from fewlabel.pseudolabels.voronoi import voronoi_targets
from fewlabel.pseudolabels.watershed import otsu_mask, otsu_watershed

__all__ = [
    "ClusterMeans",
    "ClusterSegmenter",
    "OtsuSegmenter",
    "StainSegmenter",
    "activation_maps",
    "bluest",
    "class_activation_maps",
    "clean_mask",
    "cluster_pixels",
    "darkest",
    "fuse_layers",
    "fused_features",
    "hottest",
    "jet",
    "kmeans",
    "layer_maps",
    "mask_logits",
    "normalize_maps",
    "optical_density",
    "orient_maps",
    "otsu_mask",
    "otsu_watershed",
    "peaks",
    "released",
    "resize_maps",
    "self_activation_map",
    "semantic_clusters",
    "stain_classes",
    "stain_densities",
    "voronoi_targets",
]
