# SPDX-License-Identifier: Apache-2.0
"""Log-sum-exp of similarities on NVIDIA GPUs: the N x M similarities exist in registers only.

Here: tilings, launches and autograd; ``triton_kernels.py`` has the kernels, ``triton_rows.py`` the numbers that they
multiply. The gradient of a set against itself takes both of its terms in one launch; otherwise the query's and the
key's are a launch each, and keys that need no gradient cost nothing. Nothing synchronizes with the host.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.contrast._tiles import LOG2_E, NO_KEY, Pairs
from fewlabel.kernels.contrast.triton_kernels import gain_kernel, gradient_kernel, lse_kernel
from fewlabel.kernels.contrast.triton_rows import matrix_rows

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_PEAK_WEIGHT = 2.0**12  # the largest gain after scaling: twice that, for two sums, fits float16
_GAINS = 256  # of a program that computes them


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Rows that a program owns, columns it takes at once, warps and pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def tiling(kind: str, channels: int, parts: int, capability: int, sums: int = 1) -> Tiling:
    """Return the tiling of a kernel; ``tests/kernels`` compiles each of them and refuses spills.

    Args:
        kind: ``"forward"`` or ``"backward"``.
        channels: padded to a power of two, 16 to 256.
        parts: of a number: 1, or 3 for float32.
        capability: of the GPU, 10 major + minor.
        sums: of a row: 2 with labels.
    """
    large = 90 <= capability < 120  # 227 KB of shared memory; consumer cards of every generation have 99
    if parts > 1:
        return _tiling_of_floats(kind, channels, large)
    if kind == "forward":
        if large and sums == 2:  # masks need registers
            return Tiling(64, 64, 4, 3 if channels <= 128 else 2)
        return Tiling(128, 128, 8, 2) if large else Tiling(128, 64, 8, 2)
    if large and channels == 128:
        return Tiling(64, 128, 4, 2)
    if large and channels > 128:
        return Tiling(128, 64, 8, 2)
    return Tiling(64, 64, 8 if channels == 256 else 4, 2)


def _tiling_of_floats(kind: str, channels: int, large: bool) -> Tiling:
    """Three parts of each number take three times the room."""
    if large and channels <= 64:
        return Tiling(64, 64, 4, 3)
    if large:
        return Tiling(128, 64, 8, 2) if kind == "forward" else Tiling(64, 32, 4, 2)
    return Tiling(32 if kind == "backward" and channels > 64 else 64, 32, 4, 2)


def masked_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Triton form of :func:`fewlabel.kernels.contrast.masked_lse`; arguments are already checked, not float64."""
    x = matrix_rows(query)
    if key is query and pairs.key_labels is pairs.query_labels and pairs.key_mask is None:
        return _lse(query, None, x, x, pairs)
    return _lse(query, key, x, matrix_rows(key), pairs)


def pair_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone."""
    x, y = matrix_rows(query), matrix_rows(key)
    rows, _ = _lse(query, key.detach(), x, y, pairs)
    columns, _ = _lse(key, query.detach(), y, x, pairs)
    return rows, columns


def _lse(query: Tensor, key: Tensor | None, x: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    lse: tuple[Tensor, ...] = _LSE.apply(query, key, x, y, pairs)
    return lse[0], lse[1] if len(lse) == 2 else None


class _LSE(torch.autograd.Function):
    """Log-sum-exp of queries over keys, both given as matrix rows too; no key: the queries are their own keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor | None, x: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, ...]:
        x_labels, y_labels = _comparable(pairs.query_labels), _comparable(pairs.key_labels)
        lse2 = torch.empty(pairs.streams, *x.shape[1:3], dtype=torch.float32, device=x.device)
        lse = torch.empty_like(lse2)
        if lse2.numel():
            _launch_forward(x, y, x_labels, y_labels, pairs, lse2, lse)
        ctx.save_for_backward(x, y, x_labels, y_labels, pairs.key_mask, lse2)
        ctx.pairs, ctx.channels, ctx.is_self, ctx.dtype = pairs, query.shape[-1], key is None, query.dtype
        ctx.set_materialize_grads(False)
        return lse.unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, x_labels, y_labels, mask, lse2 = ctx.saved_tensors
        gains, unit = _gains(upstream, lse2, ctx.pairs, ctx.dtype)
        side_x, side_y = (x, x_labels, gains, lse2), (y, y_labels, gains, lse2)
        used = [g is not None for g in upstream]
        grads: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            grads[0] = _gradient(side_x, side_y, mask, (True, ctx.is_self), used, unit, ctx)
        if ctx.needs_input_grad[1]:
            of_key = _gradient(side_y, side_x, None, (False, True), used, unit, ctx)
            grads[1] = of_key if mask is None else of_key.masked_fill_(~mask.unsqueeze(-1), 0.0)
        return *(None if grad is None else grad[..., : ctx.channels] for grad in grads), None, None, None


def _gains(
    upstream: tuple[Tensor | None, ...], lse2: Tensor, pairs: Pairs, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Return the gain of each row for each sum, (streams, B, N), and the unit in which float16 has them."""
    gains, unit = torch.empty_like(lse2), None
    if dtype == torch.float16 and lse2.numel():
        sums = [(g, lse) for g, lse in zip(upstream, lse2, strict=True) if g is not None]
        largest = torch.stack([torch.where(lse == NO_KEY, 0, g) for g, lse in sums]).abs().amax()
        peak = largest / (pairs.temperature * _PEAK_WEIGHT)
        unit = peak.clamp(min=torch.finfo(torch.float32).tiny)
    for stream, g in enumerate(upstream):
        if g is None or g.numel() == 0:
            continue
        with torch.cuda.device_of(g):
            gain_kernel[(math.ceil(g.numel() / _GAINS),)](
                g, lse2[stream], gains if unit is None else unit, gains[stream], *g.stride(), g.shape[1], g.numel(),
                1 / pairs.temperature, BOUNDED=pairs.bounded, SCALED=unit is not None, NUMBERS=_GAINS,
            )  # fmt: skip
    return gains, unit


_Side = tuple[Tensor, Tensor | None, Tensor, Tensor]  # rows, labels, gains or weights, log-sum-exp


def _gradient(
    x: _Side, y: _Side, mask: Tensor | None, sides: tuple[bool, bool], used: list[bool], unit: Tensor | None, ctx: Any
) -> Tensor:
    """Return the gradient of the rows of ``x``, weighted by the statistics of ``sides`` = (x, y)."""
    rows, labels, gains, lse = x
    parts, batch, n, channels = rows.shape
    out = torch.empty(batch, n, channels, dtype=ctx.dtype, device=rows.device)
    second = _second(ctx.pairs) if len(used) == 2 and used[1] else 0
    if out.numel() == 0 or y[0].numel() == 0 or not any(used):
        return out.zero_()
    tiles = tiling("backward", channels, parts, _capability(rows))
    with torch.cuda.device_of(rows):
        gradient_kernel[(math.ceil(n / tiles.rows), batch)](
            rows, y[0], _or(labels, rows), _or(y[1], rows), _or(mask, rows), gains, y[2], lse, y[3], _or(unit, rows),
            out, n, y[0].shape[2], LOG2_E / ctx.pairs.temperature,
            FIRST=used[0], SECOND=second, MASK=mask is not None, X=sides[0], Y=sides[1], SCALED=unit is not None,
            **_constants(rows, ctx.pairs, tiles),
        )  # fmt: skip
    return out


def _launch_forward(
    x: Tensor, y: Tensor, x_labels: Tensor | None, y_labels: Tensor | None, pairs: Pairs, lse2: Tensor, lse: Tensor
) -> None:
    """Fill (streams, B, N) log-sum-exp in base 2 and in base e."""
    parts, batch, n, channels = x.shape
    tiles = tiling("forward", channels, parts, _capability(x), pairs.streams)
    mask = pairs.key_mask
    with torch.cuda.device_of(x):
        lse_kernel[(math.ceil(n / tiles.rows), batch)](
            x, y, _or(x_labels, x), _or(y_labels, x), _or(mask, x), lse2, lse,
            n, y.shape[2], LOG2_E / pairs.temperature,
            SECOND=_second(pairs), MASK=mask is not None, **_constants(x, pairs, tiles),
        )  # fmt: skip


def _constants(x: Tensor, pairs: Pairs, tiles: Tiling) -> dict[str, Any]:
    """Compile-time arguments that both kernels have, and launch options."""
    return {
        "C": x.shape[-1],
        "PARTS": len(x),
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "EXCLUDE_SELF": pairs.exclude_self,
        "BOUNDED": pairs.bounded,
        "UPCAST": _INTERPRETED,  # its bfloat16 products are wrong
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _second(pairs: Pairs) -> int:
    return 0 if pairs.query_labels is None else 1 + pairs.same_label


def _comparable(labels: Tensor | None) -> Tensor | None:
    """Return contiguous labels of 32 bits, or of 64 where they come so."""
    if labels is None:
        return None
    return labels.to(torch.int64 if labels.dtype == torch.int64 else torch.int32).contiguous()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A kernel wants a pointer even where it reads nothing."""
    return stand_in if tensor is None else tensor.contiguous()


def _capability(x: Tensor) -> int:
    return _capability_of(x.device.index) if x.device.type == "cuda" else 80


@functools.cache
def _capability_of(device: int) -> int:
    """Ask once: the driver takes as long as a launch."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
