# SPDX-License-Identifier: Apache-2.0
"""Region sums and maxima in one compiled pass over the features, in the layout that they have; draws of pixels.

PyTorch has operators for rows (``index_add``, ``embedding_bag``) and none that reads channels-first planes without
copying them to rows first, which takes longer than the sums themselves; hence loops compiled by Numba. Planes
(B, C, S) and rows (B, S, C) (``channels_last``) are read as they are; anything else is copied once. Half precision is
converted window by window. Gradients have the layout of the features.

Neighboring pixels mostly share a region: the values of a run of one region (planes; up to 256 pixels) or of four
pixels of one (rows) are added in the type of the features, but at least float32, and their sum to a float64 total.
Work is dealt to threads by image and by channels (planes) or pixels (rows), in tasks that depend on the shape alone:
results are bit-equal for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from fewlabel.kernels.tasks import run_tasks
from fewlabel.kernels.threads import run_shares, share_count

Array = NDArray[Any]

_FULL: dict[torch.dtype, type[np.generic]] = {torch.float32: np.float32, torch.float64: np.float64}
_BITS = {1: torch.int8, 2: torch.int16}  # NumPy does not know all small floats
_PIECE = 2**20  # values that a thread writes at a time
_SHARED = 2**20  # values below which threads cost more than they save
_SHARED_DRAWS = 2**16  # draws below which threads cost more than they save
_WINDOW = 4096  # pixels of half precision that are converted at a time


def region_sum(features: Tensor, index: RegionIndex, mean: bool = False) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(features, index, mean)
    return total


def region_argmax(flat: Tensor, index: RegionIndex) -> Tensor:
    """Compiled form of :func:`fewlabel.kernels.regions.reference.region_argmax`."""
    pixels = _Pixels(flat if flat.dtype in _FULL else flat.float(), index)
    top, best = (pixels.table(1, dtype)[:, 0] for dtype in (pixels.dtype, np.int64))
    best.fill(-1)
    pixels.run(compiled.argmax_rows if pixels.in_rows else compiled.argmax_planes, top, best)
    return torch.from_numpy(best if pixels.in_rows else best.swapaxes(1, 2))


def sort_pixels(ids: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sort the pixels of each image by region, in raster order within one: permutation (B, S), offsets (B, L + 1)."""
    perm, offsets = torch.empty_like(ids), ids.new_zeros(len(ids), regions + 1)

    def sort(b: int, _: int) -> None:
        compiled.sort_pixels(ids[b].numpy(), perm[b].numpy(), offsets[b].numpy())

    run_tasks(sort, len(ids), share_count(len(ids), ids.device))
    return perm, offsets


def draw_pixels(index: RegionIndex, regions: Tensor, per_region: int, key: int) -> Tensor:
    """Draw pixels (B, R, K) of regions (B, R), int64; :mod:`fewlabel.kernels.regions.sample` says how."""
    perm, offsets, wanted = index.perm.numpy(), index.offsets.numpy(), regions.numpy()
    drawn = np.empty((*wanted.shape, per_region), np.int64)
    shares = share_count(len(drawn), regions.device) if drawn.size >= _SHARED_DRAWS else 1
    exist = [True] * shares

    def draw(share: int) -> None:
        exist[share] = compiled.draw_pixels(perm, offsets, wanted, drawn, np.uint64(key % 2**64), share, shares)

    if shares == 1:
        draw(0)  # a few microseconds: to set torch's modes for it would take as long
    else:
        run_shares(draw, shares)
    if not all(exist):
        raise ValueError(f"regions must be below {index.regions}, the regions of this index, got {wanted.max()}")
    return torch.from_numpy(drawn)


class _Sum(torch.autograd.Function):
    """Sums or means of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: RegionIndex, mean: bool) -> Tensor:
        flat = features.flatten(2)  # in here: as a step of its own it would be recorded, and undone backward
        pixels = _Pixels(flat, index)
        ctx.index, ctx.mean = index, mean
        ctx.layout = features.shape, flat.shape, flat.dtype, pixels.in_rows
        parts = pixels.table(pixels.parts, np.float64)
        pixels.run(compiled.sum_rows if pixels.in_rows else compiled.sum_planes, parts)
        dtype = flat.dtype if pixels.is_full else torch.float32
        total = torch.empty(flat.shape[0], index.regions, flat.shape[1], dtype=dtype)
        compiled.total_of_parts(pixels.by_region(parts), index.offsets.numpy(), mean, total.numpy())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        features, (batch, channels, length), dtype, in_rows = ctx.layout
        slots = ctx.index.regions + 1  # the last: pixels of no region
        shape = (batch, slots, channels) if in_rows else (batch, channels, slots)
        table = np.zeros(shape, _FULL.get(dtype, np.float32))
        by_region = table if in_rows else table.swapaxes(1, 2)
        compiled.share_of_pixels(upstream.numpy(), ctx.index.offsets.numpy(), ctx.mean, by_region)
        shape = (batch, length, channels) if in_rows else (batch, channels, length)
        gradient = with_huge_pages(torch.empty(shape, dtype=dtype))
        source = table if dtype in _FULL else _bits(torch.from_numpy(table).to(dtype))
        _spread(source, ctx.index.ids.numpy().reshape(batch, length), _bits(gradient), in_rows)
        return (gradient.mT if in_rows else gradient).view(features), None, None


def _bits(values: Tensor) -> Array:
    """The values as an array, in their own type or, where NumPy has none such, as integers of its size."""
    return values.numpy() if values.dtype in _FULL else values.view(_BITS[values.dtype.itemsize]).numpy()


def _spread(table: Array, ids: Array, out: Array, in_rows: bool) -> None:
    """Write the entry of its region to each pixel of (B, S, C) rows or (B, C, S) planes; -1 is the last entry.

    Not on torch's threads: after their work they keep their cores busy, and the next who wants one waits.
    """
    step = max(1, _PIECE // max(out.shape[2], 1))
    pieces = [(b, slice(start, start + step)) for b in range(len(out)) for start in range(0, out.shape[1], step)]

    def write(task: int, _: int) -> None:
        b, piece = pieces[task]
        if in_rows:
            np.take(table[b], ids[b, piece], 0, out=out[b, piece], mode="wrap")
        else:
            np.take(table[b, piece], ids[b], 1, out=out[b, piece], mode="wrap")

    run_tasks(write, len(pieces), _shares(len(pieces), out.size))


def _shares(tasks: int, values: int) -> int:
    """How many shares to split tasks on a number of values into."""
    return share_count(tasks, torch.device("cpu")) if values >= _SHARED else 1


def _dense(flat: Tensor) -> tuple[bool, Tensor]:
    """Tell whether the values are rows, and return them as planes (B, C, S) or rows (B, S, C) without gaps."""
    (_, channels, pixels), (_, far, near) = flat.shape, flat.stride()
    if (near == 1 or pixels == 1) and (far == pixels or channels == 1):
        return False, flat
    if (far == 1 or channels == 1) and (near == channels or pixels == 1):
        return True, flat.mT
    return False, flat.contiguous()


class _Pixels:
    """(B, C, S) features as planes or rows, read by compiled loops; half precision in converted windows."""

    def __init__(self, flat: Tensor, index: RegionIndex) -> None:
        self.in_rows, self.values = _dense(flat)
        self.batch, self.channels, self.length = flat.shape
        self.ids, self.regions = index.ids.numpy().reshape(self.batch, self.length), index.regions
        self.dtype = _FULL.get(flat.dtype, np.float32)
        self.is_full = flat.dtype in _FULL
        self.in_parts = self.in_rows or not self.is_full  # else in groups of channels
        self.parts = max(1, math.ceil(self.length / compiled.part_length(self.length))) if self.in_parts else 1

    def table(self, parts: int, dtype: type[np.generic]) -> Array:
        """Zeros for each region and channel, (B, parts, L, C) for rows and (B, parts, C, L) for planes."""
        shape = (self.regions, self.channels) if self.in_rows else (self.channels, self.regions)
        return np.zeros((self.batch, parts, *shape), dtype)

    def by_region(self, table: Array) -> Array:
        """A table as (B, parts, L, C), a view."""
        return table if self.in_rows else table.swapaxes(2, 3)

    def run(self, loop: Callable[..., None], *tables: Array) -> None:
        """Call a loop on all images and their entries of tables, dealt to threads."""
        tasks_of_image = self.parts if self.in_parts else math.ceil(self.channels / 4)
        shares = _shares(self.batch * tasks_of_image, self.values.numel())
        if not self.is_full:
            tasks = list(product(range(self.batch), range(self.parts)))
            run_tasks(lambda task, _: self._convert(loop, *tasks[task], tables), len(tasks), shares)
            return
        values = self.values.numpy()

        def work(share: int) -> None:
            for b in range(self.batch):  # images of one task go to one share each
                entries = [table[b] for table in tables]
                loop(values[b], self.ids[b], *entries, (share + b) % shares, shares)

        run_shares(work, shares)

    def _convert(self, loop: Callable[..., None], b: int, part: int, tables: tuple[Array, ...]) -> None:
        """Call a loop on the windows of a part of an image."""
        length = compiled.part_length(self.length)
        end = min((part + 1) * length, self.length)
        for first in range(part * length, end, _WINDOW):
            at = slice(first, min(first + _WINDOW, end))
            window = self.values[b, at] if self.in_rows else self.values[b, :, at]
            entries = (table[b, part % table.shape[1]][None] for table in tables)
            loop(window.float().numpy(), self.ids[b, at], *entries, 0, 1)
