# SPDX-License-Identifier: Apache-2.0
"""Region sums and maxima in one compiled pass over the features, in the layout that they have; draws of pixels.

PyTorch has operators for rows (``index_add``, ``embedding_bag``) and none that reads channels-first planes without
copying them to rows first, which takes longer than the sums themselves; hence loops compiled by Numba. Planes
(B, C, S) and rows (B, S, C) (``channels_last``) are read, and their gradients written, as they are; anything else is
copied once. Half precision is converted window by window.

Neighboring pixels mostly share a region: sums are kept in registers along a run of one region, in the type of the
features but at least float32, and added to a float64 total where the run ends or has 256 pixels. Work is dealt to
threads by image and by channels (planes) or pixels (rows), in shares that depend on the shape alone: results are
bit-equal for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.memory import with_huge_pages
from fewlabel.kernels.regions import compiled
from fewlabel.kernels.regions.index import RegionIndex
from fewlabel.kernels.threads import run_shares, share_count

_PLANES = 4  # channels to a task, where they are planes and there is work for several threads
_ROWS, _MOST_PARTS = 32768, 8  # rows to a task, at least; parts of an image, at most
_SHARED = 2**20  # values below which threads cost more than they save
_SHARED_DRAWS = 2**16  # draws below which threads cost more than they save
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64}
_WINDOW = 16384  # pixels of half precision that are converted at a time


def region_sum(features: Tensor, index: RegionIndex, mean: bool = False) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(features, index, mean)
    return total


def region_argmax(flat: Tensor, index: RegionIndex) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_argmax`."""
    blocks = _Blocks(flat.detach(), index)
    top, best = blocks.table(1, blocks.dtype), blocks.table(1, torch.int64)
    best.fill(-1)
    kernel = compiled.argmax_rows if blocks.in_rows else compiled.argmax_planes

    def work(b: int, part: int) -> None:
        for first, ids, values in blocks.windows(b, part):
            kernel(values, ids, first, *(blocks.entry(table, b, part) for table in (top, best)))

    blocks.run(work, one_thread_per_image=blocks.in_rows)
    return torch.from_numpy(blocks.by_region(best)[0])


def sort_pixels(ids: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sort the pixels of each image by region, in raster order within one: permutation (B, S), offsets (B, L + 1)."""
    perm, offsets = torch.empty_like(ids), ids.new_zeros(len(ids), regions + 1)
    shares = share_count(len(ids), ids.device)

    def work(share: int) -> None:
        for b in range(share, len(ids), shares):
            compiled.sort_pixels(ids[b].numpy(), perm[b].numpy(), offsets[b].numpy())

    run_shares(work, shares)
    return perm, offsets


def draw_pixels(index: RegionIndex, regions: Tensor, per_region: int, key: int) -> Tensor:
    """Draw pixels (B, R, K) of regions (B, R), int64; :mod:`fewlabel.kernels.regions.sample` says how."""
    drawn = regions.new_empty(*regions.shape, per_region)
    perm, offsets, wanted, out = (t.numpy() for t in (index.perm, index.offsets, regions, drawn))
    shares = share_count(len(regions), regions.device) if drawn.numel() >= _SHARED_DRAWS else 1

    def work(share: int) -> None:
        for b in range(share, len(regions), shares):
            compiled.draw_pixels(perm[b], offsets[b], wanted[b], out[b], b, np.uint64(key % 2**64))

    run_shares(work, shares)
    return drawn


class _Sum(torch.autograd.Function):
    """Sums or means of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: RegionIndex, mean: bool) -> Tensor:
        flat = features.flatten(2)  # in here: as a step of its own it would be recorded, and undone backward
        blocks = _Blocks(flat, index)
        ctx.index, ctx.layout, ctx.mean = index, (features.shape, flat.shape, flat.dtype, blocks.in_rows), mean
        sums = blocks.table(len(blocks.parts) if blocks.in_rows else 1, torch.float64)
        kernel = compiled.sum_rows if blocks.in_rows else compiled.sum_planes

        def work(b: int, part: int) -> None:
            for _, ids, values in blocks.windows(b, part):
                kernel(values, ids, blocks.entry(sums, b, part))

        blocks.run(work)
        total = torch.empty(len(flat), index.regions, flat.shape[1], dtype=blocks.dtype)
        compiled.total_of_parts(blocks.by_region(sums), index.offsets.numpy(), mean, total.numpy())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        features, (batch, channels, pixels), dtype, in_rows = ctx.layout
        shape = (batch, pixels, channels) if in_rows else (batch, channels, pixels)
        gradient = with_huge_pages(torch.empty(shape, dtype=dtype))
        gradient = gradient.mT if in_rows else gradient
        blocks = _Blocks(gradient, ctx.index)
        spread = blocks.table(1, upstream.dtype)
        shares = blocks.by_region(spread)[0]
        compiled.share_of_pixels(upstream.numpy(), ctx.index.offsets.numpy(), ctx.mean, shares)
        kernel = compiled.spread_rows if blocks.in_rows else compiled.spread_planes

        def work(b: int, part: int) -> None:
            for _, ids, values in blocks.windows(b, part, write=True):
                kernel(blocks.entry(spread, b, part), ids, values)

        blocks.run(work)
        return gradient.view(features), None, None


def _dense(flat: Tensor) -> tuple[bool, Tensor]:
    """Tell whether the values are rows, and return them as planes (B, C, S) or rows (B, S, C) without gaps."""
    (_, channels, pixels), (_, far, near) = flat.shape, flat.stride()
    if (near == 1 or pixels == 1) and (far == pixels or channels == 1):
        return False, flat
    if (far == 1 or channels == 1) and (near == channels or pixels == 1):
        return True, flat.mT
    return False, flat.contiguous()


class _Blocks:
    """(B, C, S) features cut into blocks that a thread handles at a time: some or all planes, or a part of the rows."""

    def __init__(self, flat: Tensor, index: RegionIndex) -> None:
        self.in_rows, self.features = _dense(flat)
        self.batch, self.channels, pixels = flat.shape
        self.ids, self.regions = index.ids.numpy().reshape(self.batch, pixels), index.regions
        self.dtype = torch.promote_types(flat.dtype, torch.float32)
        self.array = self.features.numpy() if flat.dtype == self.dtype else None
        length, self.is_small = pixels if self.in_rows else self.channels, flat.numel() < _SHARED
        step = max(_ROWS, math.ceil(length / _MOST_PARTS)) if self.in_rows else length if self.is_small else _PLANES
        self.parts = [slice(start, start + step) for start in range(0, length, max(step, 1))]

    def table(self, parts: int, dtype: torch.dtype) -> NDArray[Any]:
        """Zeros for each region and channel, (parts, B, L, C) for rows and (parts, B, C, L) for planes."""
        shape = (self.regions, self.channels) if self.in_rows else (self.channels, self.regions)
        return np.zeros((parts, self.batch, *shape), _NUMPY[dtype])

    def entry(self, table: NDArray[Any], b: int, part: int) -> NDArray[Any]:
        """The entries of a table that belong to a block."""
        return table[part % len(table), b] if self.in_rows else table[0, b, self.parts[part]]

    def by_region(self, table: NDArray[Any]) -> NDArray[Any]:
        """A table as (parts, B, L, C), a view."""
        return table if self.in_rows else table.swapaxes(2, 3)

    def windows(self, b: int, part: int, write: bool = False) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """Yield first pixel, ids and values (read, or to be written) of a block; half precision in several windows."""
        pixels = self.parts[part] if self.in_rows else slice(0, self.ids.shape[1])
        if self.array is not None:
            yield pixels.start, self.ids[b, pixels], self.array[b, self.parts[part]]
            return
        block, pixel_axis = self.features[b, self.parts[part]], 0 if self.in_rows else 1
        for first in range(0, block.shape[pixel_axis], _WINDOW):
            window = block.narrow(pixel_axis, first, min(_WINDOW, block.shape[pixel_axis] - first))
            start = pixels.start + first
            values = window.new_empty(window.shape, dtype=self.dtype) if write else window.to(self.dtype)
            yield start, self.ids[b, start : start + window.shape[pixel_axis]], values.numpy()
            if write:
                window.copy_(values)

    def run(self, work: Callable[[int, int], None], one_thread_per_image: bool = False) -> None:
        """Call ``work(image, part)`` for all blocks, dealt to threads in turn."""
        images, parts = range(self.batch), range(len(self.parts))
        if self.is_small:
            for task in product(images, parts):
                work(*task)
            return
        deal = [[(b, part) for part in parts] for b in images]
        deal = deal if one_thread_per_image else [[task] for tasks in deal for task in tasks]
        shares = share_count(len(deal), self.features.device)

        def share(number: int) -> None:
            for tasks in deal[number::shares]:
                for task in tasks:
                    work(*task)

        run_shares(share, shares)
