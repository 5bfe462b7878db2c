# SPDX-License-Identifier: Apache-2.0
"""Superpixel segmentation, kept on disk, and sampling of regions and pixels."""

from __future__ import annotations

from fewlabel.superpixels.segment import felzenszwalb

__all__ = ["felzenszwalb"]
