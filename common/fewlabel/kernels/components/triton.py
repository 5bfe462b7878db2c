# SPDX-License-Identifier: Apache-2.0
"""Connected components on the GPU: union-find by atomic minima, five launches whatever the image holds.

Layout: a program owns up to 256 pixels of one row of one image, one to a thread, as paths differ in length. int32
parents are raster indices in the image, -1 on background. ``open`` lets each pixel point to the first of its run (a
scan in registers). ``merge`` joins runs with the runs that they touch in earlier rows: of each contact only the first
pixel works, and of two roots the larger is hung under the smaller by an atomic minimum, repeated from whatever
another program has put there meanwhile. ``flatten`` lets each pixel point to its root, the first pixel of its
component; a prefix sum over roots numbers them in raster order; ``number`` writes the numbers. Parents only ever
become smaller members of the same component, so a stale read costs a step and no more, and the result does not depend
on the order of programs.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fewlabel.kernels.components.portable import relabel
from fewlabel.kernels.grid import neighbor_rows

__all__ = ["components", "relabel"]

_MOST = 256  # pixels of a program
_REGISTERS = 64  # a thread's; without a number ptxas aims at 32, and spills a few


def components(values: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    """GPU form without synchronization; see :func:`fewlabel.kernels.components.reference.components`."""
    batch, depth, height, width = values.shape
    parent = torch.empty(values.shape, dtype=torch.int32, device=values.device)
    is_root = torch.empty(values.shape, dtype=torch.int8, device=values.device)
    reach = {(dz, dy): r for dz, dy, r in neighbor_rows(connectivity)}
    block = min(_MOST, max(32, triton.next_power_of_2(width)))
    grid = (batch * depth * height * triton.cdiv(width, block),)
    space = {"depth": depth, "height": height, "width": width, "BLOCK": block}
    space |= {"num_warps": block // 32, "maxnreg": _REGISTERS}
    _open_kernel[grid](values, parent, **space)
    _merge_kernel[grid](
        values,
        parent,
        **space,
        ABOVE=reach[0, -1],
        BEFORE=reach.get((-1, 0), -1),
        DIAGONAL=reach.get((-1, 1), -1),
    )
    _flatten_kernel[grid](parent, is_root, **space)
    ranks = is_root.view(-1).cumsum(0, dtype=torch.int32)
    last = ranks.view(batch, -1)[:, -1]
    before = torch.cat([last.new_zeros(1), last[:-1]])
    labels = torch.empty_like(parent)
    _number_kernel[grid](parent, ranks, before, labels, **space)
    return labels, last - before


@triton.jit
def _place(depth, height, width, BLOCK: tl.constexpr):
    """Image, slice, row, and the columns that this program owns."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    row = program // blocks
    x = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    return row // (depth * height), (row // height) % depth, row % height, x


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def _open_kernel(values, parent, depth, height, width, BLOCK: tl.constexpr):
    b, z, y, x = _place(depth, height, width, BLOCK)
    image = b.to(tl.int64) * depth * height * width
    at = (z * height + y) * width + x
    value = tl.load(values + image + at, mask=x < width, other=0)
    left = tl.load(values + image + at - 1, mask=(x < width) & (x > 0), other=0)
    joined = (value != 0) & (value == left) & (x > 0)
    opens = tl.where((value != 0) & (joined == 0), at, -1)
    opens = tl.where(joined & (x % BLOCK == 0), at - 1, opens)  # the run began in the block before
    first = tl.associative_scan(opens, 0, _larger)
    tl.store(parent + image + at, tl.where(value != 0, first, -1), mask=x < width)


@triton.jit
def _merge_kernel(
    values,
    parent,
    depth,
    height,
    width,
    BLOCK: tl.constexpr,
    ABOVE: tl.constexpr,
    BEFORE: tl.constexpr,
    DIAGONAL: tl.constexpr,
):
    b, z, y, x = _place(depth, height, width, BLOCK)
    image = b.to(tl.int64) * depth * height * width
    values += image
    parent += image
    _join_row(values, parent, z, y, x, 0, -1, height, width, ABOVE)
    if BEFORE >= 0:
        _join_row(values, parent, z, y, x, -1, 0, height, width, BEFORE)
    if DIAGONAL >= 0:
        _join_row(values, parent, z, y, x, -1, -1, height, width, DIAGONAL)
        _join_row(values, parent, z, y, x, -1, 1, height, width, DIAGONAL)


@triton.jit
def _join_row(values, parent, z, y, x, dz, dy, height, width, REACH: tl.constexpr):
    """Join each pixel with its neighbors in one other row, unless the pixel beside it does the same."""
    inside = (x < width) & (z + dz >= 0) & (y + dy >= 0) & (y + dy < height)
    here = (z * height + y) * width + x
    there = here + (dz * height + dy) * width
    has_left, has_right = inside & (x > 0), inside & (x < width - 1)
    value = tl.load(values + here, mask=inside, other=0)
    left = tl.load(values + here - 1, mask=has_left, other=0)
    middle = tl.load(values + there, mask=inside, other=0)
    far_left = tl.load(values + there - 1, mask=has_left, other=0)
    inside = inside & (value != 0)
    touch = inside & (value == middle)
    _union(parent, here, there, touch & ((value != left) | (value != far_left)))
    if REACH > 0:
        right = tl.load(values + here + 1, mask=has_right, other=0)
        far_right = tl.load(values + there + 1, mask=has_right, other=0)
        apart = inside & (value != middle)
        _union(parent, here, there - 1, apart & (value == far_left) & (value != left))
        _union(parent, here, there + 1, apart & (value == far_right) & (value != right))


@triton.jit
def _union(parent, a, b, active):
    """Make pixels of two trees members of one, whatever other programs do to the trees meanwhile."""
    a = _root(parent, a, active)
    b = _root(parent, b, active)
    active = active & (a != b)
    while tl.max(active.to(tl.int32), axis=0) > 0:
        high, low = tl.maximum(a, b), tl.minimum(a, b)
        found = tl.atomic_min(parent + high, low, mask=active, sem="relaxed")
        active = active & (found != high)  # else high was a root, and now hangs under low
        a = _root(parent, tl.where(active, found, low), active)
        b = _root(parent, low, active)
        active = active & (a != b)


@triton.jit
def _root(parent, node, active):
    above = tl.load(parent + node, mask=active, other=0, cache_modifier=".cg")
    moves = active & (above != node)
    while tl.max(moves.to(tl.int32), axis=0) > 0:
        node = tl.where(moves, above, node)
        above = tl.load(parent + node, mask=moves, other=0, cache_modifier=".cg")
        moves = moves & (above != node)
    return node


@triton.jit
def _flatten_kernel(parent, is_root, depth, height, width, BLOCK: tl.constexpr):
    b, z, y, x = _place(depth, height, width, BLOCK)
    image = b.to(tl.int64) * depth * height * width
    at = (z * height + y) * width + x
    above = tl.load(parent + image + at, mask=x < width, other=-1)
    root = _root(parent + image, at, above >= 0)
    tl.store(parent + image + at, root, mask=above >= 0)
    tl.store(is_root + image + at, ((above >= 0) & (root == at)).to(tl.int8), mask=x < width)


@triton.jit
def _number_kernel(parent, ranks, before, labels, depth, height, width, BLOCK: tl.constexpr):
    b, z, y, x = _place(depth, height, width, BLOCK)
    image = b.to(tl.int64) * depth * height * width
    at = (z * height + y) * width + x
    root = tl.load(parent + image + at, mask=x < width, other=-1)
    rank = tl.load(ranks + image + root, mask=root >= 0, other=0)
    tl.store(labels + image + at, tl.where(root >= 0, rank - tl.load(before + b), 0), mask=x < width)
