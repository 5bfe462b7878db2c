# SPDX-License-Identifier: Apache-2.0
"""Superpixel segmentation and sampling of regions and pixels."""
