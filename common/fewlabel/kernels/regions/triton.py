# SPDX-License-Identifier: Apache-2.0
"""Regions on NVIDIA GPUs: sums and maxima that read each value once where it lies and add nothing atomically; draws.

Forward, two launches. The pixels of an image, sorted by region (``perm``), are cut into pieces of up to P (256 or 512)
pixels of one region, so that a large background is the work of many programs. Piece j of region r has slot

    offsets[r] // P + r + j,

which is free of collisions, since ceil(n / P) pieces never take more than floor(n / P) + 1 slots; a program finds its
region by bisection among the few that can have its slot, and no table is built. It owns one slot and a group of
channels: it gathers tiles of (channels, pixels) through ``perm`` and adds them up in float32 (float64 for float64).
Neighbors in ``perm`` are mostly neighbors in a row of the image: planes are read in runs, a whole piece at a time, so
that it is looked up once for all channels; rows (``channels_last``) by whole vectors. One kernel, given the strides,
does both. The second launch sums the slots of each region, which are consecutive. All orders are fixed, so repeats are
bit-equal. Backward, one launch: a program owns a block of pixels and a group of channels, and writes to each pixel
what its region has received. Nothing synchronizes with the host.

Maxima take the same two launches with (value, entry of ``perm``) in the place of a sum; of equal values the one with
the lowest entry wins, which is the first in raster order, so that no order of reduction can show.

Draws of pixels, one launch: a thread computes its random number and reads its pixel.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.regions.index import RegionIndex
from fewlabel.kernels.regions.sample import GAMMA, IMAGE_BIT, MIX_A, MIX_B, REGION_BIT, signed

_GROUP = 64  # channels of a program
_SLOTS = 16  # partial sums that are read at a time
_DRAWS = 256  # of a program
TOTAL_WARPS, TOP_WARPS = 1, 2  # of a program that reduces them


@dataclass(frozen=True)
class Tile:
    """Channels and pixels that a program takes at once, its warps, and how many pixels of a region it sums at most."""

    channels: int
    pixels: int
    warps: int = 4
    piece: int = 512


def sum_tile(in_rows: bool, channels: int) -> Tile:
    """Return the tile that is gathered from a layout; the longer side is the one that lies together in memory."""
    widest = triton.next_power_of_2(channels)
    return Tile(min(_GROUP, widest), 32) if in_rows else Tile(min(4, widest), 256, warps=2, piece=256)


def spread_tile(in_rows: bool, channels: int) -> Tile:
    """Return the tile that is written to a layout."""
    widest = triton.next_power_of_2(channels)
    return Tile(min(_GROUP, widest), 32) if in_rows else Tile(min(8, widest), 128)


def region_sum(features: Tensor, index: RegionIndex, mean: bool = False) -> Tensor:
    """GPU form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(features, index, mean)
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


def draw_pixels(index: RegionIndex, regions: Tensor, per_region: int, key: int) -> Tensor:
    """Draw pixels (B, R, K) of regions (B, R), int64; :mod:`fewlabel.kernels.regions.sample` says how."""
    drawn = torch.empty((*regions.shape, per_region), dtype=torch.int64, device=regions.device)
    if drawn.numel():
        with torch.cuda.device_of(drawn):
            _draw_kernel[(math.ceil(drawn.numel() / _DRAWS),)](
                index.perm.contiguous(), index.offsets.contiguous(), regions, drawn, signed(key), drawn.numel(),
                regions.shape[1], per_region, index.perm.shape[1], index.regions, DRAWS=_DRAWS,
                IMAGE_BIT=IMAGE_BIT, REGION_BIT=REGION_BIT,
                GAMMA=signed(GAMMA), MIX_A=signed(MIX_A), MIX_B=signed(MIX_B),
            )  # fmt: skip
    return drawn


@dataclass(frozen=True)
class _Launch:
    """The two launches of a reduction over the pixels of each region."""

    batch: int
    channels: int
    regions: int
    slots: int
    tile: Tile

    @classmethod
    def of(cls, flat: Tensor, index: RegionIndex) -> _Launch:
        tile = sum_tile(_in_rows(flat), flat.shape[1])
        return cls(flat.shape[0], flat.shape[1], index.regions, flat.shape[2] // tile.piece + index.regions + 1, tile)

    @property
    def partials(self) -> tuple[int, int, int]:
        return self.batch, self.slots, self.channels

    def pieces(self, kernel: Any, flat: Tensor, index: RegionIndex, partials: tuple[Tensor, ...]) -> None:
        """Reduce each piece to its slot."""
        tile, pixels = self.tile, flat.shape[2]
        kernel[(self.slots, math.ceil(self.channels / _GROUP), self.batch)](
            flat, index.perm.contiguous(), index.offsets.contiguous(), *partials, *flat.stride(),
            self.channels, pixels, self.regions, self.slots, min(pixels // tile.piece, self.regions - 1).bit_length(),
            PIECE=tile.piece, GROUP=_GROUP, CHANNELS=tile.channels, PIXELS=tile.pixels, num_warps=tile.warps,
        )  # fmt: skip

    def totals(
        self, kernel: Any, index: RegionIndex, partials: tuple[Tensor, ...], out: Tensor, warps: int, **more: int
    ) -> None:
        """Reduce the slots of each region."""
        kernel[(self.regions, math.ceil(self.channels / _GROUP), self.batch)](
            *partials, index.offsets.contiguous(), out, self.channels, self.regions, self.slots, **more,
            PIECE=self.tile.piece, CHANNELS=min(_GROUP, triton.next_power_of_2(self.channels)), SLOTS=_SLOTS,
            num_warps=warps,
        )  # fmt: skip


class _Sum(torch.autograd.Function):
    """Sums or means of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: RegionIndex, mean: bool) -> Tensor:
        flat = features.flatten(2)  # in here: as a step of its own it would be recorded, and undone backward
        ctx.index, ctx.layout, ctx.mean = index, (features.shape, flat.shape, flat.dtype, _in_rows(flat)), mean
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
        features, (batch, channels, pixels), dtype, in_rows = ctx.layout
        shape = (batch, pixels, channels) if in_rows else (batch, channels, pixels)
        gradient = torch.empty(shape, dtype=dtype, device=upstream.device)
        gradient = gradient.mT if in_rows else gradient
        if gradient.numel() == 0 or ctx.index.regions == 0:
            return gradient.zero_().view(features), None, None
        tile = spread_tile(in_rows, channels)
        with torch.cuda.device_of(gradient):
            _spread_kernel[(math.ceil(pixels / tile.pixels), math.ceil(channels / _GROUP), batch)](
                upstream.contiguous(), ctx.index.ids.contiguous(), ctx.index.offsets.contiguous(), gradient,
                *gradient.stride(), channels, pixels, ctx.index.regions,
                GROUP=_GROUP, CHANNELS=tile.channels, PIXELS=tile.pixels, MEAN=ctx.mean, num_warps=tile.warps,
            )  # fmt: skip
        return gradient.view(features), None, None


def _in_rows(flat: Tensor) -> bool:
    return flat.stride(1) < flat.stride(2)


@triton.jit
def _region_of(slot, offsets, pixels, steps, regions, PIECE: tl.constexpr):
    """The last region whose first slot is not behind this one: none lies more than pixels // PIECE below it.

    Behind the last region with pixels, where an index has room for more, any answer is as good.
    """
    low, high = tl.minimum(tl.maximum(slot - pixels // PIECE, 0), regions - 1), tl.minimum(slot, regions - 1)
    is_needed = tl.load(offsets + low) < tl.load(offsets + regions)
    for _ in range(tl.where(is_needed, steps, 0)):
        middle = (low + high + 1) // 2
        is_behind = tl.load(offsets + middle) // PIECE + middle > slot
        low, high = tl.where(is_behind, low, middle), tl.where(is_behind, tl.maximum(middle - 1, low), high)
    return low


@triton.jit
def _piece_of(slot, offsets, pixels, steps, regions, PIECE: tl.constexpr):
    """First entry of the piece in a slot, and the one behind its last; nothing in between if the slot is not needed."""
    region = _region_of(slot, offsets, pixels, steps, regions, PIECE)
    first, last = tl.load(offsets + region), tl.load(offsets + region + 1)
    begin = first + (slot - first // PIECE - region) * PIECE
    return begin, tl.minimum(begin + PIECE, last)


@triton.jit
def _slots_of(offsets, region, PIECE: tl.constexpr):
    """First slot of a region, the one behind its last that is needed, and the number of its pixels."""
    first, last = tl.load(offsets + region), tl.load(offsets + region + 1)
    slot = first // PIECE + region
    return slot, slot + tl.cdiv(last - first, PIECE), last - first


@triton.jit
def _pixels_of(perm, at, end, PIXELS: tl.constexpr):
    """Entries of ``perm`` from ``at``, their pixels, and which of them are before the end."""
    entry = at + tl.arange(0, PIXELS)
    return entry, tl.load(perm + entry, mask=entry < end, other=0).to(tl.int64), entry < end


@triton.jit
def _values(planes, pixel, is_channel, is_pixel, stride_p, other: tl.constexpr):
    """A tile of (channels, pixels)."""
    inside = is_channel[:, None] & is_pixel[None, :]
    return tl.load(planes[:, None] + (pixel * stride_p)[None, :], mask=inside, other=other)


@triton.jit
def _piece_kernel(
    features, perm, offsets, partial, stride_b, stride_c, stride_p, channels, pixels, regions, slots, steps,
    PIECE: tl.constexpr, GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    slot, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    perm += image * pixels
    features += image * stride_b
    partial += (image * slots + slot) * channels
    begin, end = _piece_of(slot, offsets + image * (regions + 1), pixels, steps, regions, PIECE)
    group = tl.program_id(1) * GROUP
    stop = tl.where(begin < end, tl.minimum(group + GROUP, channels), group)  # slots that nobody needs stay as they are
    _, first, exists = _pixels_of(perm, begin, end, PIXELS)
    for channel in range(group, stop, CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        planes = features + c.to(tl.int64) * stride_c
        total = _values(planes, first, c < channels, exists, stride_p, 0.0).to(partial.dtype.element_ty)
        if PIXELS < PIECE:
            for at in range(begin + PIXELS, end, PIXELS):
                _, pixel, more = _pixels_of(perm, at, end, PIXELS)
                total += _values(planes, pixel, c < channels, more, stride_p, 0.0).to(total.dtype)
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
    begin, end = _piece_of(slot, offsets + image * (regions + 1), pixels, steps, regions, PIECE)
    group = tl.program_id(1) * GROUP
    stop = tl.where(begin < end, tl.minimum(group + GROUP, channels), group)  # slots that nobody needs stay as they are
    entry, first, exists = _pixels_of(perm, begin, end, PIXELS)
    place = tl.where(exists, entry, 2147483647)
    for channel in range(group, stop, CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        planes = features + c.to(tl.int64) * stride_c
        top = _values(planes, first, c < channels, exists, stride_p, float("-inf")).to(tops.dtype.element_ty)
        best = tl.broadcast_to(place[None, :], (CHANNELS, PIXELS))
        if PIXELS < PIECE:
            for at in range(begin + PIXELS, end, PIXELS):
                later, pixel, more = _pixels_of(perm, at, end, PIXELS)
                value = _values(planes, pixel, c < channels, more, stride_p, float("-inf")).to(top.dtype)
                top, best = _larger(top, best, value, tl.where(more, later, 2147483647)[None, :])
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


@triton.jit
def _shifted(bits, BY: tl.constexpr):
    """Shift right and fill with zeros, not with the sign."""
    return (bits >> BY) & ((1 << (64 - BY)) - 1)


@triton.jit(do_not_specialize=["key"])
def _draw_kernel(
    perm, offsets, regions, drawn, key, total, rows, draws, pixels, labels,
    DRAWS: tl.constexpr, IMAGE_BIT: tl.constexpr, REGION_BIT: tl.constexpr,
    GAMMA: tl.constexpr, MIX_A: tl.constexpr, MIX_B: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * DRAWS + tl.arange(0, DRAWS)
    exists = at < total
    row = at // draws
    image = row // rows
    region = tl.load(regions + row, mask=exists, other=-1)
    is_region = (region >= 0) & (region < labels)
    bounds = offsets + image * (labels + 1) + region
    first = tl.load(bounds, mask=is_region, other=0).to(tl.int64)
    count = tl.load(bounds + 1, mask=is_region, other=0).to(tl.int64) - first
    bits = ((image << IMAGE_BIT) + (region << REGION_BIT) + at % draws) * GAMMA + key
    bits = (bits ^ _shifted(bits, 30)) * MIX_A
    bits = (bits ^ _shifted(bits, 27)) * MIX_B
    bits = bits ^ _shifted(bits, 31)
    entry = first + ((_shifted(bits, 32) * count) >> 32)
    pixel = tl.load(perm + image * pixels + entry, mask=count > 0, other=-1)
    tl.store(drawn + at, pixel.to(tl.int64), mask=exists)
