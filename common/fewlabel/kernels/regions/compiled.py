# SPDX-License-Identifier: Apache-2.0
"""The loops of :mod:`fewlabel.kernels.regions.cpu`: each call does a share of one image on one thread.

``planes`` are (c, n) values, channel after channel; ``rows`` are (n, c), pixel after pixel. ``ids`` (n) holds the
region of each pixel, negative where it has none. All is C-contiguous but where said. Share ``share`` of ``shares``
takes every ``shares``-th task; what a task is depends on the shape alone, and so do results. Compiled on first use,
cached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.regions.sample import GAMMA, IMAGE_BIT, MIX_A, MIX_B, REGION_BIT, SHIFTS

Values = NDArray[Any]  # float32 or float64
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

_GAMMA, _MIX_A, _MIX_B = np.uint64(GAMMA), np.uint64(MIX_A), np.uint64(MIX_B)
_SHIFT_A, _SHIFT_B, _SHIFT_C = (np.uint64(by) for by in SHIFTS)
_IMAGE_BIT, _REGION_BIT, _HALF = np.uint64(IMAGE_BIT), np.uint64(REGION_BIT), np.uint64(32)
_ROWS, _MOST_PARTS = 32768, 8  # pixels to a part of an image of rows, at least; parts, at most
_RUN = 255  # a run of one region is cut wherever the lower bits of its position are zero: at 256 pixels


def part_length(pixels: int) -> int:
    """Return how many pixels of an image are the part that gets totals of its own, so that parts can go to threads."""
    return max(_ROWS, (pixels + _MOST_PARTS - 1) // _MOST_PARTS)


_part_length = compiled(part_length)  # for compiled code; a call from Python costs more than it computes


@compiled
def sum_planes(planes: Values, ids: Ints, totals: Values, share: int, shares: int) -> None:
    """Add each channel's values to the totals (1, c, L) of their regions; a task is a group of four channels."""
    channels = len(planes)
    for k in range(4 * share, channels, 4 * shares):
        if k + 4 <= channels:
            _sum_four(planes, ids, totals[0], k)
        else:
            for last in range(k, channels):
                _sum_one(planes, ids, totals[0], last)


@compiled
def _sum_four(planes: Values, ids: Ints, total: Values, k: int) -> None:
    """Four channels at a time hide the latency."""
    region, zero = np.int32(-1), planes.dtype.type(0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for p in range(len(ids)):
        if ids[p] != region or (p & _RUN) == 0:
            if region >= 0:
                total[k, region] += s0
                total[k + 1, region] += s1
                total[k + 2, region] += s2
                total[k + 3, region] += s3
            region = ids[p]
            s0, s1, s2, s3 = zero, zero, zero, zero
        s0 += planes[k, p]
        s1 += planes[k + 1, p]
        s2 += planes[k + 2, p]
        s3 += planes[k + 3, p]
    if region >= 0:
        total[k, region] += s0
        total[k + 1, region] += s1
        total[k + 2, region] += s2
        total[k + 3, region] += s3


@compiled
def _sum_one(planes: Values, ids: Ints, total: Values, k: int) -> None:
    region, zero = np.int32(-1), planes.dtype.type(0)
    s = zero
    for p in range(len(ids)):
        if ids[p] != region or (p & _RUN) == 0:
            if region >= 0:
                total[k, region] += s
            region, s = ids[p], zero
        s += planes[k, p]
    if region >= 0:
        total[k, region] += s


@compiled
def sum_rows(rows: Values, ids: Ints, totals: Values, share: int, shares: int) -> None:
    """Add each pixel's values to the totals (parts, L, c) of its region; a task is a part (:func:`part_length`)."""
    pixels = len(rows)
    length = _part_length(pixels)
    for part in range(share, len(totals), shares):
        stretch = slice(part * length, min((part + 1) * length, pixels))
        _sum_part(rows[stretch], ids[stretch], totals[part])


@compiled
def _sum_part(rows: Values, ids: Ints, total: Values) -> None:
    """Where four pixels that follow one another are of one region, its total is read and written once for them."""
    pixels, channels = rows.shape
    p = 0
    while p < pixels:
        region = ids[p]
        if p + 4 <= pixels and ids[p + 1] == region and ids[p + 2] == region and ids[p + 3] == region:
            if region >= 0:
                for k in range(channels):
                    total[region, k] += (rows[p, k] + rows[p + 1, k]) + (rows[p + 2, k] + rows[p + 3, k])
            p += 4
        else:
            if region >= 0:
                for k in range(channels):
                    total[region, k] += rows[p, k]
            p += 1


@compiled
def total_of_parts(parts: Values, offsets: Ints, mean: bool, out: Values) -> None:
    """Add up totals (B, parts, L, c), of any strides, and divide them by the pixels of the regions for means."""
    images, count, regions, channels = parts.shape
    for b in range(images):
        for region in range(regions):
            size = max(offsets[b, region + 1] - offsets[b, region], 1) if mean else 1
            for k in range(channels):
                s = 0.0
                for part in range(count):
                    s += parts[b, part, region, k]
                out[b, region, k] = s / size


@compiled
def share_of_pixels(upstream: Values, offsets: Ints, mean: bool, out: Values) -> None:
    """Turn the gradient (B, L, c) of sums or means, of any strides, into what a pixel of each region gets, the same."""
    images, regions, channels = upstream.shape
    for b in range(images):
        for region in range(regions):
            size = max(offsets[b, region + 1] - offsets[b, region], 1) if mean else 1
            for k in range(channels):
                out[b, region, k] = upstream[b, region, k] / size


@compiled
def argmax_planes(planes: Values, ids: Ints, top: Values, best: Longs, share: int, shares: int) -> None:
    """Keep per channel and region the largest value (``top``) and its first pixel (``best``, -1 before any): (c, L).

    A NaN is larger than every number. A task is a channel.
    """
    channels, pixels = planes.shape
    for k in range(share, channels, shares):
        p = 0
        while p < pixels:
            region, value, at = ids[p], planes[k, p], p
            p += 1
            while p < pixels and ids[p] == region:
                if planes[k, p] > value or (planes[k, p] != planes[k, p] and value == value):
                    value, at = planes[k, p], p
                p += 1
            if region >= 0:
                known = top[k, region]
                if best[k, region] < 0 or value > known or (value != value and known == known):
                    top[k, region], best[k, region] = value, at


@compiled
def argmax_rows(rows: Values, ids: Ints, top: Values, best: Longs, share: int, shares: int) -> None:
    """As :func:`argmax_planes` for rows; ``top`` and ``best`` are (L, c). A share is a range of channels."""
    pixels, channels = rows.shape
    for p in range(pixels):
        region = ids[p]
        if region >= 0:
            for k in range(share * channels // shares, (share + 1) * channels // shares):
                value, known = rows[p, k], top[region, k]
                if best[region, k] < 0 or value > known or (value != value and known == known):
                    top[region, k], best[region, k] = value, p


@compiled
def sort_pixels(ids: Ints, perm: Ints, offsets: Ints) -> None:
    """Counting sort of the pixels of one image by region, ignored ones last; ``offsets`` (L + 1) starts as zeros."""
    for region in ids:
        if region >= 0:
            offsets[region + 1] += 1
    for region in range(len(offsets) - 1):
        offsets[region + 1] += offsets[region]
    place = offsets.copy()
    for p in range(len(ids)):
        slot = ids[p] if ids[p] >= 0 else len(offsets) - 1
        perm[place[slot]] = p
        place[slot] += 1


@compiled
def draw_pixels(
    perm: Ints, offsets: Ints, regions: Longs, drawn: Longs, key: np.uint64, share: int, shares: int
) -> bool:
    """Draw (B, R, K) pixels of the regions (B, R): SplitMix64 of the counter, as on all devices. A task is an image.

    Returns whether there are such regions; the draws of one that does not exist are -1.
    """
    images, rows, draws = drawn.shape
    labels, exist = offsets.shape[1] - 1, True
    for b in range(share, images, shares):
        for r in range(rows):
            region, count = regions[b, r], np.uint64(0)
            exist = exist and region < labels
            if 0 <= region < labels:
                count = np.uint64(offsets[b, region + 1] - offsets[b, region])
            first = offsets[b, region] if count > 0 else 0
            counter = (np.uint64(b) << _IMAGE_BIT) + (np.uint64(region) << _REGION_BIT)
            for k in range(draws):
                bits = (counter + np.uint64(k)) * _GAMMA + key
                bits = (bits ^ (bits >> _SHIFT_A)) * _MIX_A
                bits = (bits ^ (bits >> _SHIFT_B)) * _MIX_B
                bits ^= bits >> _SHIFT_C
                entry = np.int64(((bits >> _HALF) * count) >> _HALF)
                drawn[b, r, k] = perm[b, first + entry] if count > 0 else -1
    return exist
