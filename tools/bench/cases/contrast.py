# SPDX-License-Identifier: Apache-2.0
"""Pixel-wise InfoNCE: the tiled kernel, dense cross entropy, and row chunks under activation checkpointing.

Gradient columns: ``none`` (forward only), ``query`` (frozen key), ``both``, ``symmetric`` (both directions, the key of
each held constant: the form that Min-Max Similarity uses).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from fewlabel.kernels.contrast import info_nce
from tools.bench.case import Case, Problem, Work

TEMPERATURE = 0.07
SIZES = ((1, 2304, 32), (4, 2304, 32), (1, 9216, 16), (1, 10816, 64))  # B, N, C; dense: up to 16 B N^2 bytes
GRADIENTS = ("none", "query", "both", "symmetric")
Loss = Callable[[Tensor, Tensor], Tensor]


def dense(query: Tensor, key: Tensor) -> Tensor:
    """Return the cross entropy of all similarities, stored."""
    logits = torch.bmm(query, key.transpose(1, 2)) / TEMPERATURE
    target = torch.arange(query.shape[1], device=query.device).repeat(query.shape[0])
    return cross_entropy(logits.flatten(0, 1), target)


def chunked(query: Tensor, key: Tensor, rows: int = 1024) -> Tensor:
    """Return the same from chunks of rows whose similarities are computed again in the backward pass."""

    def part(chunk: Tensor, key: Tensor, start: int) -> Tensor:
        logits = torch.bmm(chunk, key.transpose(1, 2)) / TEMPERATURE
        target = torch.arange(start, start + chunk.shape[1], device=key.device).repeat(key.shape[0])
        return cross_entropy(logits.flatten(0, 1), target, reduction="sum")

    starts = range(0, query.shape[1], rows)
    parts = [checkpoint(part, query[:, s : s + rows], key, s, use_reentrant=False) for s in starts]
    return torch.stack(parts).sum() / (query.shape[0] * query.shape[1])


def tiled(query: Tensor, key: Tensor) -> Tensor:
    """Return the kernel's loss."""
    return info_nce(query, key, TEMPERATURE)


def tiled_symmetric(query: Tensor, key: Tensor) -> Tensor:
    """Return the kernel's loss of both directions in one sweep."""
    return info_nce(query, key, TEMPERATURE, symmetric=True)


def _symmetric(loss: Loss, query: Tensor, key: Tensor) -> Tensor:
    """Both directions by two calls."""
    return (loss(query, key.detach()) + loss(key, query.detach())) / 2


def _make(b: int, n: int, c: int, gradient: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit vectors; the key resembles the query, as two views of one image do."""
    generator = torch.Generator().manual_seed(0)
    query = normalize(torch.randn(b, n, c, generator=generator), dim=-1)
    key = normalize(query + 0.5 * torch.randn(b, n, c, generator=generator), dim=-1)
    query, key = query.to(device), key.to(device)
    return query.requires_grad_(gradient != "none"), key.requires_grad_(gradient in ("both", "symmetric"))


def _problem(b: int, n: int, c: int, gradient: str) -> Problem:
    products = {"none": 1, "query": 2, "both": 3, "symmetric": 3}[gradient]
    inputs, outputs = 2, {"none": 0, "query": 1, "both": 2, "symmetric": 2}[gradient]
    pairs = 1e-9 * b * n * n
    forms: dict[str, Loss] = {"tiled": tiled, "dense": dense, "chunked": chunked}
    if gradient == "symmetric":
        two_calls = {name: partial(_symmetric, form) for name, form in forms.items()}
        forms = two_calls | {"tiled": tiled_symmetric, "tiled, two calls": two_calls["tiled"]}
    return Problem(
        columns={"mode": "forward" if gradient == "none" else "forward+backward", "gradient": gradient}
        | {"B": b, "N": n, "C": c, "dtype": "float32"},
        work=Work(2 * products * c * pairs, pairs, 4e-9 * (inputs + outputs) * b * n * c),
        make=partial(_make, b, n, c, gradient),
        implementations=forms,
        backward=gradient != "none",
    )


CASE = Case("contrast", "dense", [_problem(*size, gradient) for size in SIZES for gradient in GRADIENTS])
