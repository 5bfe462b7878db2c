# SPDX-License-Identifier: Apache-2.0
"""Contrast in which location i of the query belongs to location i of the key."""

from __future__ import annotations

from torch import Tensor

from fewlabel.kernels.contrast._tiles import Pairs
from fewlabel.kernels.contrast.lse import (
    bounded_logits,
    check_operands,
    compute_type,
    log_one_plus_exp,
    masked_lse,
    operands,
    operator_for,
)

__all__ = ["all_negative", "info_nce"]


def info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float = 0.07,
    *,
    symmetric: bool = False,
    unit_norm: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return the InfoNCE loss with every location a query and the same location of the key its positive.

    F(q, k) = mean_{b,i} [ log sum_j exp(q_i . k_j / temperature) - q_i . k_i / temperature ], which is the cross
    entropy of the similarities with target i. Symmetric: [F(q, sg k) + F(k, sg q)] / 2, where sg is stop-gradient, in
    one sweep over the similarities. (Without stop-gradient: ``(info_nce(q, k) + info_nce(k, q)) / 2``.)

    Args:
        query: (B, N, C), floating, normalized by the caller.
        key: (B, N, C), floating; detach it where it shall receive no gradient.
        temperature: > 0.
        symmetric: average both directions, the keys of each direction held constant.
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        Scalar, >= 0, float32 (float64 for float64 input), differentiable in query and, unless detached, key.

    Raises:
        ValueError: shapes differ or are empty; see also :func:`masked_lse`.
        TypeError: see :func:`masked_lse`.

    References:
        van den Oord et al., "Representation learning with contrastive predictive coding", arXiv:1807.03748, eq. 4;
        pixel-wise in Lou et al., "Min-Max Similarity", arXiv:2203.15177.

    Example:
        >>> import math, torch
        >>> z = torch.eye(4)[None]
        >>> round(info_nce(z, z, temperature=1.0).item(), 4) == round(math.log(math.e + 3) - 1, 4)
        True
    """
    _check_pairs(query, key, temperature)
    if symmetric:
        rows, columns = _pair_lse(query, key, temperature, False, unit_norm, backend)
        same = _dots(query, key.detach()) + _dots(query.detach(), key)
        return (rows + columns - same / temperature).mean() / 2
    lse, _ = masked_lse(query, key, temperature=temperature, unit_norm=unit_norm, backend=backend)
    return (lse - _dots(query, key) / temperature).mean()


def all_negative(
    query: Tensor,
    key: Tensor,
    temperature: float = 0.07,
    *,
    include_same_location: bool = False,
    symmetric: bool = False,
    unit_norm: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return the contrastive loss of unrelated images, where every pair is a negative.

    G(q, k) = mean_{b,i} log(1 + sum_{j != i} exp(q_i . k_j / temperature)): InfoNCE whose positive logit is the
    constant 0. Symmetric: [G(q, sg k) + G(k, sg q)] / 2, as in :func:`info_nce`.

    Args:
        query: (B, N, C), floating, normalized by the caller.
        key: (B, N, C), floating; detach it where it shall receive no gradient.
        temperature: > 0.
        include_same_location: count j = i as a negative too (the released code does not).
        symmetric: average both directions, the keys of each direction held constant.
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        Scalar, >= 0 (0 for N = 1 without the same location), float32 (float64 for float64 input), differentiable in
        query and, unless detached, key.

    Raises:
        ValueError: shapes differ or are empty; see also :func:`masked_lse`.
        TypeError: see :func:`masked_lse`.

    References:
        Lou et al., "Min-Max Similarity", arXiv:2203.15177; the constant 0 and j != i as in the authors' released code.

    Example:
        >>> import math, torch
        >>> z = torch.zeros(1, 3, 2)
        >>> round(all_negative(z, z).item(), 4) == round(math.log(3), 4)
        True
    """
    _check_pairs(query, key, temperature)
    exclude_self = not include_same_location
    if symmetric:
        rows, columns = _pair_lse(query, key, temperature, exclude_self, unit_norm, backend)
        return (log_one_plus_exp(rows).mean() + log_one_plus_exp(columns).mean()) / 2
    lse, _ = masked_lse(
        query, key, temperature=temperature, exclude_self=exclude_self, unit_norm=unit_norm, backend=backend
    )
    return log_one_plus_exp(lse).mean()


def _pair_lse(
    query: Tensor, key: Tensor, temperature: float, exclude_self: bool, unit_norm: bool | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of rows (differentiable in the query) and of columns (in the key)."""
    operator = operator_for(query, key, backend)
    query, key = operands(query, key, operator)
    pairs = Pairs(float(temperature), exclude_self, bounded_logits(query, key, temperature, unit_norm))
    lse: tuple[Tensor, Tensor] = operator.pair_lse(query, key, pairs)
    return lse


def _check_pairs(query: Tensor, key: Tensor, temperature: float) -> None:
    """As for :func:`masked_lse`, and location i must have its partner."""
    check_operands(query, key, temperature)
    if query.shape != key.shape or query.numel() == 0:
        shapes = f"{tuple(query.shape)} and {tuple(key.shape)}"
        raise ValueError(f"expected query and key of one shape (B, N, C), B and N at least 1, got {shapes}")


def _dots(query: Tensor, key: Tensor) -> Tensor:
    """Similarities of partners, (B, N), in the type of computation."""
    dtype = compute_type(query, key)
    return (query.to(dtype) * key.to(dtype)).sum(-1)
