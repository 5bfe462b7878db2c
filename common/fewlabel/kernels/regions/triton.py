# SPDX-License-Identifier: Apache-2.0
"""Region sums and maxima on NVIDIA GPUs: each value is read once where it lies, and nothing is added atomically.

Forward, two launches. The pixels of an image, sorted by region (``perm``), are cut into pieces of up to 512 pixels
of one region, so that a large background is the work of many programs. Piece j of region r has slot

    offsets[r] // 512 + r + j,

which is free of collisions, since ceil(n / 512) pieces never take more than floor(n / 512) + 1 slots; a program finds
its region by bisection, and no table is built. It owns one slot and a group of channels: it gathers tiles of (channels,
pixels) through ``perm`` and adds them up in float32 (float64 for float64). Neighbors in ``perm`` are mostly
neighbors in a row of the image: planes are read in runs, rows (``channels_last``) by whole vectors, by one kernel that
is given the strides. The second launch sums the slots of each region, which are consecutive. All orders are fixed,
so repeats are bit-equal. Backward, one launch: a program owns a block of pixels and a group of channels, and writes to
each pixel what its region has received. Nothing synchronizes with the host.

Maxima take the same two launches with (value, entry of ``perm``) in the place of a sum; of equal values the one with
the lowest entry wins, which is the first in raster order, so that no order of reduction can show.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.regions.index import RegionIndex

_PIECE = 512  # pixels of one region that a program sums
_GROUP = 64  # channels of a program
_SLOTS = 16  # partial sums that are read at a time
TOTAL_WARPS, TOP_WARPS = 1, 2  # of a program that reduces them


@dataclass(frozen=True)
class Tile:
    """Channels and pixels (or partial sums) that a program takes at once, and its warps."""

    channels: int
    pixels: int
    warps: int = 4


def tile(in_rows: bool, channels: int) -> Tile:
    """Return the tile for a layout; the longer side is the one that lies together in memory."""
    widest = triton.next_power_of_2(channels)
    return Tile(min(_GROUP, widest), 32) if in_rows else Tile(min(8, widest), 128)


def region_sum(flat: Tensor, index: RegionIndex, mean: bool = False) -> Tensor:
    """GPU form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(flat, index, mean)
    return total


def region_argmax(flat: Tensor, index: RegionIndex) -> Tensor:
    """GPU form of :func:`fewlabel.kernels.regions.reference.region_argmax`."""
    best = flat.new_empty((flat.shape[0], index.regions, flat.shape[1]), dtype=torch.int64)
    if flat.numel() == 0 or index.regions == 0:
        return best.fill_(-1)
    launch = _Launch.of(flat, index)
    tops = flat.new_empty(launch.partials, dtype=torch.promote_types(flat.dtype, torch.float32))
    entries = torch.empty_like(tops, dtype=torch.int32)
    with torch.cuda.device_of(flat):
        launch.pieces(_top_piece_kernel, flat, index, (tops, entries))
        parts = tops, entries, index.perm.contiguous()
        launch.totals(_top_kernel, index, parts, best, TOP_WARPS, pixels=flat.shape[2])
    return best


@dataclass(frozen=True)
class _Launch:
    """The two launches of a reduction over the pixels of each region."""

    batch: int
    channels: int
    regions: int
    slots: int

    @classmethod
    def of(cls, flat: Tensor, index: RegionIndex) -> _Launch:
        return cls(flat.shape[0], flat.shape[1], index.regions, flat.shape[2] // _PIECE + index.regions + 1)

    @property
    def partials(self) -> tuple[int, int, int]:
        return self.batch, self.slots, self.channels

    def pieces(self, kernel: Any, flat: Tensor, index: RegionIndex, partials: tuple[Tensor, ...]) -> None:
        """Reduce each piece to its slot."""
        shape, pixels = tile(_in_rows(flat), self.channels), flat.shape[2]
        kernel[(self.slots, triton.cdiv(self.channels, _GROUP), self.batch)](
            flat, index.perm.contiguous(), index.offsets.contiguous(), *partials, *flat.stride(),
            self.channels, pixels, self.regions, self.slots, self.regions.bit_length(),
            PIECE=_PIECE, GROUP=_GROUP, CHANNELS=shape.channels, PIXELS=shape.pixels, num_warps=shape.warps,
        )  # fmt: skip

    def totals(
        self, kernel: Any, index: RegionIndex, partials: tuple[Tensor, ...], out: Tensor, warps: int, **more: int
    ) -> None:
        """Reduce the slots of each region."""
        kernel[(self.regions, triton.cdiv(self.channels, _GROUP), self.batch)](
            *partials, index.offsets.contiguous(), out, self.channels, self.regions, self.slots, **more,
            PIECE=_PIECE, CHANNELS=min(_GROUP, triton.next_power_of_2(self.channels)), SLOTS=_SLOTS, num_warps=warps,
        )  # fmt: skip


class _Sum(torch.autograd.Function):
    """Sums or means of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: RegionIndex, mean: bool) -> Tensor:
        ctx.index, ctx.layout, ctx.mean = index, torch.empty_like(flat, device="meta"), mean
        dtype = torch.promote_types(flat.dtype, torch.float32)
        total = flat.new_empty((flat.shape[0], index.regions, flat.shape[1]), dtype=dtype)
        if flat.numel() == 0 or index.regions == 0:
            return total.zero_()
        launch = _Launch.of(flat, index)
        partial = flat.new_empty(launch.partials, dtype=dtype)
        with torch.cuda.device_of(flat):
            launch.pieces(_piece_kernel, flat, index, (partial,))
            launch.totals(_total_kernel, index, (partial,), total, TOTAL_WARPS, MEAN=mean)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        gradient = torch.empty_like(ctx.layout, device=upstream.device)
        batch, channels, pixels = gradient.shape
        if gradient.numel() == 0 or ctx.index.regions == 0:
            return gradient.zero_(), None, None
        shape = tile(_in_rows(gradient), channels)
        with torch.cuda.device_of(gradient):
            _spread_kernel[(triton.cdiv(pixels, shape.pixels), triton.cdiv(channels, _GROUP), batch)](
                upstream.contiguous(), ctx.index.ids.contiguous(), ctx.index.offsets.contiguous(), gradient,
                *gradient.stride(), channels, pixels, ctx.index.regions,
                GROUP=_GROUP, CHANNELS=shape.channels, PIXELS=shape.pixels, MEAN=ctx.mean, num_warps=shape.warps,
            )  # fmt: skip
        return gradient, None, None


def _in_rows(flat: Tensor) -> bool:
    return flat.stride(1) < flat.stride(2)


@triton.jit
def _region_of(slot, offsets, steps, regions, PIECE: tl.constexpr):
    """The last region whose first slot is not behind this one."""
    low, high = slot * 0, slot * 0 + regions - 1
    for _ in range(steps):
        middle = (low + high + 1) // 2
        is_behind = tl.load(offsets + middle) // PIECE + middle > slot
        low, high = tl.where(is_behind, low, middle), tl.where(is_behind, tl.maximum(middle - 1, low), high)
    return low


@triton.jit
def _piece_of(slot, offsets, steps, regions, PIECE: tl.constexpr):
    """First entry of the piece in a slot, and the one behind its last; nothing in between if the slot is not needed."""
    region = _region_of(slot, offsets, steps, regions, PIECE)
    first, last = tl.load(offsets + region), tl.load(offsets + region + 1)
    begin = first + (slot - first // PIECE - region) * PIECE
    return begin, tl.minimum(begin + PIECE, last)


@triton.jit
def _slots_of(offsets, region, PIECE: tl.constexpr):
    """First slot of a region, the one behind its last, and the number of its pixels."""
    first, last = tl.load(offsets + region), tl.load(offsets + region + 1)
    return first // PIECE + region, last // PIECE + region + 1, last - first


@triton.jit
def _piece_kernel(
    features, perm, offsets, partial, stride_b, stride_c, stride_p, channels, pixels, regions, slots, steps,
    PIECE: tl.constexpr, GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    slot, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    perm += image * pixels
    features += image * stride_b
    partial += (image * slots + slot) * channels
    begin, end = _piece_of(slot, offsets + image * (regions + 1), steps, regions, PIECE)
    group = tl.program_id(1) * GROUP
    for channel in range(group, tl.minimum(group + GROUP, channels), CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        planes = features + c.to(tl.int64) * stride_c
        total = tl.zeros((CHANNELS, PIXELS), partial.dtype.element_ty)
        for at in range(begin, end, PIXELS):
            entry = at + tl.arange(0, PIXELS)
            pixel = tl.load(perm + entry, mask=entry < end, other=0).to(tl.int64)
            inside = (c < channels)[:, None] & (entry < end)[None, :]
            value = tl.load(planes[:, None] + (pixel * stride_p)[None, :], mask=inside, other=0.0)
            total += value.to(total.dtype)
        tl.store(partial + c, tl.sum(total, axis=1), mask=c < channels)


@triton.jit
def _total_kernel(
    partial, offsets, total, channels, regions, slots,
    PIECE: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    region, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin, end, size = _slots_of(offsets + image * (regions + 1), region, PIECE)
    sums = tl.zeros((SLOTS, CHANNELS), partial.dtype.element_ty)
    for at in range(begin, end, SLOTS):
        slot = at + tl.arange(0, SLOTS)
        inside = (slot < end)[:, None] & (c < channels)[None, :]
        sums += tl.load(partial + ((image * slots + slot) * channels)[:, None] + c[None, :], mask=inside, other=0.0)
    value = tl.sum(sums, axis=0)
    if MEAN:
        value = value / tl.maximum(size, 1).to(value.dtype)
    tl.store(total + (image * regions + region) * channels + c, value, mask=c < channels)


@triton.jit
def _spread_kernel(
    upstream, ids, offsets, gradient, stride_b, stride_c, stride_p, channels, pixels, regions,
    GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    region = tl.load(ids + image * pixels + pixel, mask=pixel < pixels, other=-1)
    is_in_region = region >= 0
    values = upstream + (image * regions + region) * channels
    if MEAN:
        bounds = offsets + image * (regions + 1) + region
        first = tl.load(bounds, mask=is_in_region, other=0)
        size = tl.maximum(tl.load(bounds + 1, mask=is_in_region, other=1) - first, 1).to(upstream.dtype.element_ty)
    at = gradient + image * stride_b + pixel.to(tl.int64) * stride_p
    group = tl.program_id(1) * GROUP
    for channel in range(group, tl.minimum(group + GROUP, channels), CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        is_channel = (c < channels)[:, None]
        value = tl.load(values[None, :] + c[:, None], mask=is_channel & is_in_region[None, :], other=0.0)
        if MEAN:
            value = value / size[None, :]
        place = at[None, :] + (c.to(tl.int64) * stride_c)[:, None]
        tl.store(place, value.to(gradient.dtype.element_ty), mask=is_channel & (pixel < pixels)[None, :])


@triton.jit
def _larger(value, entry, other, at):
    """The larger value and its entry; NaN is larger than every number, and of equals the lower entry counts."""
    is_better = (other > value) | ((other != other) & (value == value))
    is_equal = (other == value) | ((other != other) & (value != value))
    take = is_better | (is_equal & (at < entry))
    return tl.where(take, other, value), tl.where(take, at, entry)


@triton.jit
def _top_piece_kernel(
    features, perm, offsets, tops, entries, stride_b, stride_c, stride_p, channels, pixels, regions, slots, steps,
    PIECE: tl.constexpr, GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    slot, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    perm += image * pixels
    features += image * stride_b
    out = (image * slots + slot) * channels
    begin, end = _piece_of(slot, offsets + image * (regions + 1), steps, regions, PIECE)
    group = tl.program_id(1) * GROUP
    for channel in range(group, tl.minimum(group + GROUP, channels), CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        planes = features + c.to(tl.int64) * stride_c
        top = tl.full((CHANNELS, PIXELS), float("-inf"), tops.dtype.element_ty)
        best = tl.full((CHANNELS, PIXELS), 2147483647, tl.int32)
        for at in range(begin, end, PIXELS):
            entry = at + tl.arange(0, PIXELS)
            pixel = tl.load(perm + entry, mask=entry < end, other=0).to(tl.int64)
            inside = (c < channels)[:, None] & (entry < end)[None, :]
            value = tl.load(planes[:, None] + (pixel * stride_p)[None, :], mask=inside, other=float("-inf"))
            top, best = _larger(top, best, value.to(top.dtype), tl.where(inside, entry[None, :], 2147483647))
        top, best = tl.reduce((top, best), 1, _larger)
        tl.store(tops + out + c, top, mask=c < channels)
        tl.store(entries + out + c, best, mask=c < channels)


@triton.jit
def _top_kernel(
    tops, entries, perm, offsets, best, channels, regions, slots, pixels,
    PIECE: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    region, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin, end, _ = _slots_of(offsets + image * (regions + 1), region, PIECE)
    top = tl.full((SLOTS, CHANNELS), float("-inf"), tops.dtype.element_ty)
    entry = tl.full((SLOTS, CHANNELS), 2147483647, tl.int32)
    for at in range(begin, end, SLOTS):
        slot = at + tl.arange(0, SLOTS)
        inside = (slot < end)[:, None] & (c < channels)[None, :]
        place = ((image * slots + slot) * channels)[:, None] + c[None, :]
        value = tl.load(tops + place, mask=inside, other=float("-inf"))
        top, entry = _larger(top, entry, value, tl.load(entries + place, mask=inside, other=2147483647))
    top, entry = tl.reduce((top, entry), 0, _larger)
    exists = (c < channels) & (entry < pixels)
    pixel = tl.load(perm + image * pixels + entry, mask=exists, other=-1).to(tl.int64)
    tl.store(best + (image * regions + region) * channels + c, pixel, mask=c < channels)
