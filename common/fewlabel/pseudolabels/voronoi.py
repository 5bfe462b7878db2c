# SPDX-License-Identifier: Apache-2.0
"""Points as labels: a seed around each, borders half way between, the rest unknown."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels.distance import point_seeds, voronoi_edges, voronoi_labels

IGNORED = 255


def voronoi_targets(points: Tensor, shape: tuple[int, int], seed_radius_px: int = 2) -> Tensor:
    """Return the Voronoi label of an image's points.

    Pixels next to another point's cell are background, pixels within ``seed_radius_px`` of a point are nucleus, also
    on an edge; all others are left out of the loss.

    Args:
        points: (P, 2) rows and columns, integers or floating (rounded); those outside of the image do not count.
        shape: (H, W).
        seed_radius_px: seeds are disks of this radius; 2 makes 13 pixels.

    Returns:
        (1, H, W) uint8: 0 edge, 1 seed, 255 ignored. Without points all is ignored.

    Raises:
        ValueError: points are not (P, 2).

    Note:
        Edges lie on both sides of a border, each one pixel thick (pixels with a 4-neighbor of another cell), as
        a cell minus its erosion by a cross. They follow from the nearest point of each pixel, in one pass, where the
        released code rasterizes a polygon a point; the two differ by at most one pixel.

    References:
        Qu et al., Weakly supervised deep nuclei segmentation using partial points annotation in histopathology images,
        IEEE TMI 39(11), 2020, who close the edges with a disk of radius 1, which PSM does not. PSM: arXiv:2308.11144,
        section 2.3.

    Example:
        >>> voronoi_targets(torch.tensor([[0, 0], [0, 5]]), (1, 6), seed_radius_px=1)[0].tolist()
        [[1, 1, 0, 0, 1, 1]]
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected points (P, 2), got {tuple(points.shape)}")
    whole = (points.round() if points.is_floating_point() else points).long()
    size = torch.tensor(shape, device=points.device)
    whole = whole[((whole >= 0) & (whole < size)).all(dim=1)]
    target = torch.full(shape, IGNORED, dtype=torch.uint8, device=points.device)
    target[voronoi_edges(voronoi_labels(point_seeds(whole, shape), 2), 4)] = 0
    places = (whole[:, None] + _disk(seed_radius_px, points.device)).flatten(0, 1)
    rows, columns = places[((places >= 0) & (places < size)).all(dim=1)].unbind(dim=1)
    target[rows, columns] = 1
    return target[None]


def _disk(radius: int, device: torch.device) -> Tensor:
    """Return the steps (n, 2) from the center of a disk to its pixels."""
    reach = torch.arange(-radius, radius + 1, device=device)
    steps = torch.cartesian_prod(reach, reach)
    return steps[steps.square().sum(dim=1) <= radius * radius]
