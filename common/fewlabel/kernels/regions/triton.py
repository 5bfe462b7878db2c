# SPDX-License-Identifier: Apache-2.0
"""Region sums on NVIDIA GPUs: each value is read once where it lies, and nothing is added atomically.

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


def region_sum(flat: Tensor, index: RegionIndex) -> Tensor:
    """GPU form of :func:`fewlabel.kernels.regions.reference.region_sum`; its backward pass is a gather."""
    total: Tensor = _Sum.apply(flat, index)
    return total


class _Sum(torch.autograd.Function):
    """Sums of the regions; every pixel receives the gradient of its region's sum."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: RegionIndex) -> Tensor:
        ctx.index, ctx.layout = index, torch.empty_like(flat, device="meta")
        (batch, channels, pixels), regions = flat.shape, index.regions
        dtype = torch.promote_types(flat.dtype, torch.float32)
        total = flat.new_empty((batch, regions, channels), dtype=dtype)
        if flat.numel() == 0 or regions == 0:
            return total.zero_()
        slots = pixels // _PIECE + regions + 1
        partial = flat.new_empty((batch, slots, channels), dtype=dtype)
        perm, offsets = index.perm.contiguous(), index.offsets.contiguous()
        shape, groups = tile(_in_rows(flat), channels), triton.cdiv(channels, _GROUP)
        with torch.cuda.device_of(flat):
            _piece_kernel[(slots, groups, batch)](
                flat, perm, offsets, partial, *flat.stride(), channels, pixels, regions, slots, regions.bit_length(),
                PIECE=_PIECE, GROUP=_GROUP, CHANNELS=shape.channels, PIXELS=shape.pixels, num_warps=shape.warps,
            )  # fmt: skip
            _total_kernel[(regions, groups, batch)](
                partial, offsets, total, channels, regions, slots,
                PIECE=_PIECE, CHANNELS=min(_GROUP, triton.next_power_of_2(channels)), SLOTS=_SLOTS, num_warps=1,
            )  # fmt: skip
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        gradient = torch.empty_like(ctx.layout, device=upstream.device)
        batch, channels, pixels = gradient.shape
        if gradient.numel() == 0 or ctx.index.regions == 0:
            return gradient.zero_(), None
        shape = tile(_in_rows(gradient), channels)
        with torch.cuda.device_of(gradient):
            _spread_kernel[(triton.cdiv(pixels, shape.pixels), triton.cdiv(channels, _GROUP), batch)](
                upstream.contiguous(), ctx.index.ids.contiguous(), gradient, *gradient.stride(),
                channels, pixels, ctx.index.regions,
                GROUP=_GROUP, CHANNELS=shape.channels, PIXELS=shape.pixels, num_warps=shape.warps,
            )  # fmt: skip
        return gradient, None


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
def _piece_kernel(
    features, perm, offsets, partial, stride_b, stride_c, stride_p, channels, pixels, regions, slots, steps,
    PIECE: tl.constexpr, GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    slot, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    offsets += image * (regions + 1)
    perm += image * pixels
    features += image * stride_b
    partial += (image * slots + slot) * channels
    region = _region_of(slot, offsets, steps, regions, PIECE)
    first, last = tl.load(offsets + region), tl.load(offsets + region + 1)
    begin = first + (slot - first // PIECE - region) * PIECE
    end = tl.minimum(begin + PIECE, last)  # before begin where the slot is not needed: it gets zeros
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
    PIECE: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    region, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    offsets += image * (regions + 1) + region
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin = tl.load(offsets) // PIECE + region
    end = tl.load(offsets + 1) // PIECE + region + 1
    sums = tl.zeros((SLOTS, CHANNELS), partial.dtype.element_ty)
    for at in range(begin, end, SLOTS):
        slot = at + tl.arange(0, SLOTS)
        inside = (slot < end)[:, None] & (c < channels)[None, :]
        sums += tl.load(partial + ((image * slots + slot) * channels)[:, None] + c[None, :], mask=inside, other=0.0)
    tl.store(total + (image * regions + region) * channels + c, tl.sum(sums, axis=0), mask=c < channels)


@triton.jit
def _spread_kernel(
    upstream, ids, gradient, stride_b, stride_c, stride_p, channels, pixels, regions,
    GROUP: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    region = tl.load(ids + image * pixels + pixel, mask=pixel < pixels, other=-1)
    values = upstream + (image * regions + region) * channels
    at = gradient + image * stride_b + pixel.to(tl.int64) * stride_p
    group = tl.program_id(1) * GROUP
    for channel in range(group, tl.minimum(group + GROUP, channels), CHANNELS):
        c = channel + tl.arange(0, CHANNELS)
        is_channel = (c < channels)[:, None]
        value = tl.load(values[None, :] + c[:, None], mask=is_channel & (region >= 0)[None, :], other=0.0)
        place = at[None, :] + (c.to(tl.int64) * stride_c)[:, None]
        tl.store(place, value.to(gradient.dtype.element_ty), mask=is_channel & (pixel < pixels)[None, :])
