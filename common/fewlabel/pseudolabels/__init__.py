# SPDX-License-Identifier: Apache-2.0
"""Pseudo-label generators: activation maps, clustering, promptable models."""

from __future__ import annotations

from fewlabel.pseudolabels.activation_maps import activation_maps, class_activation_maps
from fewlabel.pseudolabels.self_activation import normalize_maps, resize_maps, self_activation_map

__all__ = [
    "activation_maps",
    "class_activation_maps",
    "normalize_maps",
    "resize_maps",
    "self_activation_map",
]
