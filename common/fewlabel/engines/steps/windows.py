# SPDX-License-Identifier: Apache-2.0
"""Windows in two views that show the same place, so that a decoder need not run on the rest of the views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.errors import ConfigError


class Window(NamedTuple):
    """A box in each image of one view, on the grid of the bottleneck.

    Attributes:
        corners: (B, D), the first cell of each image along each axis.
        cells: (D,), the size of all boxes.
    """

    corners: Sequence[Sequence[int]]
    cells: Sequence[int]

    def crop(self, maps: Tensor, scale: Sequence[int]) -> Tensor:
        """Cut the boxes out.

        Args:
            maps: (B, ..., *space), of any resolution.
            scale: (D,), pixels of ``maps`` that a cell spans along each axis.

        Returns:
            (B, ..., *window), contiguous; differentiable.
        """
        boxes = [
            tuple(slice(c * s, (c + n) * s) for c, n, s in zip(corner, self.cells, scale, strict=True))
            for corner in self.corners
        ]
        cut: Tensor = _Crop.apply(maps, boxes)
        return cut

    def crop_features(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Cut the boxes out of all levels of an encoder.

        Args:
            features: shallow to deep, (B, C_i, *space_i); the last is the bottleneck.

        Returns:
            The same levels, for the decoder.
        """
        grid = features[-1].shape[2:]
        return [self.crop(f, [n // g for n, g in zip(f.shape[2:], grid, strict=True)]) for f in features]


def draw_windows(regions: Tensor, regions_2: Tensor, share: float, stride: Sequence[int]) -> tuple[Window, Window]:
    """Draw a window of the first view, and put that of the second where its regions are.

    The first is around a pixel that is drawn uniformly from those with a region, as near as the border and the grid
    allow; the second around the center of mass, in its view, of all regions that the first shows.

    Args:
        regions: (B, *space) integers, label map of the first view; negative where there is no region.
        regions_2: (B, *space) of the second view, where a region has the same label.
        share: of the edges of the view, in (0, 1]; windows are rounded down to whole cells, and have one at least.
        stride: pixels of a cell of the bottleneck along each axis.

    Returns:
        The windows of both views, of one size.

    Raises:
        ConfigError: the views are not whole cells.

    Note:
        Draws from PyTorch's CPU generator. O(B S). Reads corners back from a GPU: call it before the networks run.
    """
    space = regions.shape[1:]
    if any(n % s for n, s in zip(space, stride, strict=True)):
        raise ConfigError(
            f"spatial_size {list(space)} is not whole cells of the bottleneck: give multiples of {list(stride)}, "
            "or set local_window to 1"
        )
    grid = [n // s for n, s in zip(space, stride, strict=True)]
    cells = [max(1, int(share * g)) for g in grid]

    def around(middle: Tensor) -> Window:
        size = [middle.new_tensor(numbers) for numbers in (stride, cells, grid)]
        corners = (middle / size[0] - size[1] / 2).round().clamp(min=0).minimum(size[2] - size[1])
        return Window(corners.long().tolist(), cells)

    spot = _body_pixel(regions)
    first = around(spot)
    same = _same_regions(first.crop(regions, stride), regions_2)
    return first, around(_center_of_mass(same, spot))


class _Crop(torch.autograd.Function):
    """Boxes of a batch, one an image; the gradient is written once, where slices would each fill a batch with zeros."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, boxes: Sequence[tuple[slice, ...]]) -> Tensor:
        ctx.shape, ctx.boxes = maps.shape, boxes
        return torch.stack([image[..., *box] for image, box in zip(maps, boxes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient = upstream[0].new_zeros(ctx.shape)
        for image, box, values in zip(gradient, ctx.boxes, upstream[0], strict=True):
            image[..., *box] = values
        return gradient, None


def _places(maps: Tensor) -> list[Tensor]:
    """Return the coordinate along each axis of (B, *space) maps, ready to broadcast."""
    dims = maps.ndim - 1
    return [
        torch.arange(n, device=maps.device).view(*[n if i == axis else 1 for i in range(dims)])
        for axis, n in enumerate(maps.shape[1:])
    ]


def _body_pixel(regions: Tensor) -> Tensor:
    """Draw one pixel with a region from each image, (B, D) in pixels; the middle where there is none."""
    ranks = (regions >= 0).flatten(1).cumsum(dim=1)
    total = ranks[:, -1:]
    rank = (torch.rand(len(regions), 1).to(total.device) * total).long().minimum(total - 1) + 1
    position = torch.searchsorted(ranks, rank).clamp(max=ranks.shape[1] - 1).squeeze(1)
    spot = torch.stack(torch.unravel_index(position, regions.shape[1:]), dim=1) + 0.5
    return torch.where(total > 0, spot, spot.new_tensor(regions.shape[1:]) / 2)


def _same_regions(shown: Tensor, regions_2: Tensor) -> Tensor:
    """Mark the pixels of the second view whose region is shown in the window of the first."""
    names, places = ((m.flatten(1).long() + 1).clamp_(min=0) for m in (shown, regions_2))  # 0: no region
    seen = torch.zeros(len(names), int(places.amax()) + 1, dtype=torch.bool, device=shown.device)
    seen.scatter_(1, torch.where(names < seen.shape[1], names, 0), True)
    seen[:, 0] = False
    return seen.gather(1, places).view_as(regions_2)


def _center_of_mass(mask: Tensor, otherwise: Tensor) -> Tensor:
    """Return the mean place of what is true, (B, D) in pixels."""
    total = mask.flatten(1).sum(dim=1)
    mean = [(mask * place).flatten(1).sum(dim=1) / total.clamp(min=1) + 0.5 for place in _places(mask)]
    return torch.where(total.unsqueeze(1) > 0, torch.stack(mean, dim=1), otherwise)
