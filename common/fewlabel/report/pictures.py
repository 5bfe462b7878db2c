# SPDX-License-Identifier: Apache-2.0
"""Masks over pictures, and sheets of pictures; the functions live a floor below, beside ``SaveOverlayd``."""

from __future__ import annotations

from fewlabel.transforms.overlay import COLORS, TRUTH_COLOR, montage, overlay

__all__ = ["COLORS", "TRUTH_COLOR", "montage", "overlay"]
