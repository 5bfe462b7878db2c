# SPDX-License-Identifier: Apache-2.0
"""Exact Euclidean distances, the nearest seed of each pixel, and Voronoi cells; 2-D, 3-D, batches, CPU and GPU.

Every backend gives the same bits, ties included: of several nearest seeds the first in raster order counts. Squared
distances are float64 sums (dz^2 + dy^2) + dx^2, each d rounded after the product with the spacing. Where these are
exact (a spacing of 1, of whole numbers, of halves) so are the ties; with other spacings, seeds whose distances differ
by less than rounding may stand for one another. On a GPU with Triton nothing waits for the device.
"""

from __future__ import annotations

from fewlabel.kernels.distance._nearest import nearest_seed
from fewlabel.kernels.distance.voronoi import point_seeds, voronoi_edges, voronoi_labels

__all__ = ["nearest_seed", "point_seeds", "voronoi_edges", "voronoi_labels"]
