# SPDX-License-Identifier: Apache-2.0
"""K-means of many sets of points at once, whose result depends on nothing but points and seed.

Points are rounded to 2^-19 of the range of their set. Sums over clusters are then sums of whole numbers and exact in
any order, so that threads, devices, backends and the other sets of a batch do not change a bit.
"""

from __future__ import annotations

from fewlabel.kernels.kmeans._dispatch import Clusters, kmeans

__all__ = ["Clusters", "kmeans"]
