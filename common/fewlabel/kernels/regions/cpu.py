# SPDX-License-Identifier: Apache-2.0
"""Region sums and maxima in one compiled pass over the features, in the layout that they have.

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
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from fewlabel.kernels.memory import with_huge_pages
from fewlabel.kernels.regions import compiled
from fewlabel.kernels.regions.index import RegionIndex
from fewlabel.kernels.threads import run_shares, share_count

_PLANES = 4  # channels to a task, where they are planes
_ROWS, _MOST_PARTS = 32768, 8  # rows to a task, at least; parts of an image, at most
_SHARED = 2**20  # values below which threads cost more than they save
_WINDOW = 16384  # pixels of half precision that are converted at a time


def region_sum(flat: Tensor, index: RegionIndex) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(flat, index)
    return total


def region_argmax(flat: Tensor, index: RegionIndex) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_argmax`."""
    blocks = _Blocks(flat.detach(), index)
    top, best = blocks.table(1, blocks.dtype), blocks.table(1, torch.int64)
    best.fill_(-1)
    kernel = compiled.argmax_rows if blocks.in_rows else compiled.argmax_planes

    def work(b: int, part: int) -> None:
        for first, ids, values in blocks.windows(b, part):
            kernel(values, ids, first, *(blocks.entry(table, b, part).numpy() for table in (top, best)))

    blocks.run(work, one_thread_per_image=blocks.in_rows)
    return best[0] if blocks.in_rows else best[0].mT


def sort_pixels(ids: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sort the pixels of each image by region, in raster order within one: permutation (B, S), offsets (B, L + 1)."""
    perm, offsets = torch.empty_like(ids), ids.new_zeros(len(ids), regions + 1)
    shares = share_count(len(ids), ids.device)

    def work(share: int) -> None:
        for b in range(share, len(ids), shares):
            compiled.sort_pixels(ids[b].numpy(), perm[b].numpy(), offsets[b].numpy())

    run_shares(work, shares)
    return perm, offsets


class _Sum(torch.autograd.Function):
    """Sums of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: RegionIndex) -> Tensor:
        ctx.index, ctx.layout = index, torch.empty_like(flat, device="meta")
        blocks = _Blocks(flat, index)
        total = blocks.table(len(blocks.parts) if blocks.in_rows else 1, torch.float64)
        kernel = compiled.sum_rows if blocks.in_rows else compiled.sum_planes

        def work(b: int, part: int) -> None:
            for _, ids, values in blocks.windows(b, part):
                kernel(values, ids, blocks.entry(total, b, part).numpy())

        blocks.run(work)
        total = total.sum(dim=0) if blocks.in_rows else total[0].mT
        return total.to(blocks.dtype).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient = with_huge_pages(torch.empty_like(ctx.layout, device="cpu"))
        blocks = _Blocks(gradient, ctx.index)
        if blocks.in_rows:
            return _spread_rows(upstream, ctx.index, gradient), None
        spread = upstream.mT.contiguous().unsqueeze(0)

        def work(b: int, part: int) -> None:
            for _, ids, values in blocks.windows(b, part, write=True):
                compiled.spread_planes(blocks.entry(spread, b, part).numpy(), ids, values)

        blocks.run(work)
        return gradient, None


def _spread_rows(upstream: Tensor, index: RegionIndex, gradient: Tensor) -> Tensor:
    """Write to every pixel what its region has received: for rows PyTorch's operator is the fastest."""
    batch, regions, _ = upstream.shape
    received = pad(upstream, (0, 0, 0, 1)).flatten(0, 1).to(gradient.dtype)  # a row of zeros, for pixels of no region
    ids = index.ids.flatten(1)
    first = torch.arange(batch, device=ids.device).unsqueeze(1) * (regions + 1)
    where = torch.where(ids < 0, regions, ids) + first
    rows = gradient.mT
    if rows.is_contiguous():
        torch.index_select(received, 0, where.flatten(), out=rows.flatten(0, 1))
    else:
        rows.copy_(received[where])
    return gradient


class _Blocks:
    """(B, C, S) features cut into blocks that one thread handles at a time: four planes, or a part of the rows."""

    def __init__(self, flat: Tensor, index: RegionIndex) -> None:
        self.in_rows = flat[:1].mT.is_contiguous() and not flat[:1].is_contiguous()
        self.features = flat.mT if self.in_rows else flat
        if not self.features[:1].is_contiguous():
            self.features = self.features.contiguous()
        self.ids, self.regions = index.ids.flatten(1), index.regions
        self.dtype = torch.promote_types(flat.dtype, torch.float32)
        length = self.features.shape[1]
        step = max(_ROWS, math.ceil(length / _MOST_PARTS)) if self.in_rows else _PLANES
        self.parts = [slice(start, start + step) for start in range(0, length, step)]

    def table(self, parts: int, dtype: torch.dtype) -> Tensor:
        """Zeros for each region and channel, (parts, B, L, C) for rows and (parts, B, C, L) for planes."""
        channels = self.features.shape[2 if self.in_rows else 1]
        shape = (self.regions, channels) if self.in_rows else (channels, self.regions)
        return torch.zeros(parts, len(self.features), *shape, dtype=dtype)

    def entry(self, table: Tensor, b: int, part: int) -> Tensor:
        """The entries of a table that belong to a block."""
        return table[part % len(table), b] if self.in_rows else table[0, b, self.parts[part]]

    def windows(self, b: int, part: int, write: bool = False) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """Yield first pixel, ids and values (read, or to be written) of a block; half precision in several windows."""
        block, pixel_axis = self.features[b, self.parts[part]], 0 if self.in_rows else 1
        start = self.parts[part].start if self.in_rows else 0
        pixels = block.shape[pixel_axis]
        step = pixels if block.dtype == self.dtype else _WINDOW
        for first in range(0, pixels, max(step, 1)):
            window = block.narrow(pixel_axis, first, min(step, pixels - first))
            ids = self.ids[b, start + first : start + first + window.shape[pixel_axis]].numpy()
            values = window if block.dtype == self.dtype else window.new_empty(window.shape, dtype=self.dtype)
            if values is not window and not write:
                values.copy_(window)
            yield start + first, ids, values.numpy()
            if values is not window and write:
                window.copy_(values)

    def run(self, work: Callable[[int, int], None], one_thread_per_image: bool = False) -> None:
        """Call ``work(image, part)`` for all blocks, dealt to threads in turn."""
        images, parts = range(len(self.features)), range(len(self.parts))
        deal = [[(b, part) for part in parts] for b in images]
        deal = deal if one_thread_per_image else [[task] for tasks in deal for task in tasks]
        shares = share_count(len(deal), self.features.device) if self.features.numel() >= _SHARED else 1

        def share(number: int) -> None:
            for tasks in deal[number::shares]:
                for task in tasks:
                    work(*task)

        run_shares(share, shares)
