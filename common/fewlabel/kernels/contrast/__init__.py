# SPDX-License-Identifier: Apache-2.0
"""Contrast between N locations and N keys without ever storing the N x N similarities.

Everything here rests on one quantity, the log-sum-exp of similarities s_ij = q_i . k_j over a temperature. Rows are
expected to be normalized by the caller (any norm: the operators themselves normalize nothing and add no constant), in
shape (B, N, C); items of a batch never see each other. Computation is in float32 (float64 for float64 input) whatever
the input and autocast say, memory grows with N and not with N^2, repeats are bit-equal, and a side that needs no
gradient costs nothing: detach a frozen key.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.contrast import cpu, reference

__all__ = ["all_negative", "info_nce", "masked_lse"]

_MODULES: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
_BOUND = {torch.float32: 40.0, torch.float64: 300.0}  # largest |logit| that needs no shift before exp


def masked_lse(
    query: Tensor,
    key: Tensor,
    query_labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    temperature: float = 0.07,
    *,
    exclude_self: bool = False,
    unit_norm: bool | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Return the log-sum-exp of each query's similarities, over all keys and over keys of another label.

    lse_all_i = log sum_j exp(q_i . k_j / temperature), lse_neg_i the same over the j with another label than i. With
    them come, by subtraction, the contrastive losses with one, many or no positives.

    Args:
        query: (B, N, C), floating; any strides.
        key: (B, M, C), floating, on the query's device.
        query_labels: (B, N) integers, or ``None`` for no second sum.
        key_labels: (B, M) integers; given exactly when ``query_labels`` is. int32 is the fastest.
        temperature: > 0; similarities are divided by it.
        exclude_self: leave out the pair i = j, by index.
        unit_norm: ``True`` promises rows of L2 norm <= 1 (rows normalized in the L1 or L2 sense are), which saves
            the running maximum; if the promise is broken beyond float32, the result is inf. ``False`` promises nothing.
            ``None`` looks at the norms where that costs no synchronization (CPU), else promises nothing.
        backend: ``auto``, ``cpu`` (tiled) or ``reference`` (dense); ``FEWLABEL_BACKEND`` replaces ``auto``.

    Returns:
        ``lse_all`` and ``lse_neg`` (``None`` without labels): (B, N), float32, or float64 for float64 input,
        differentiable in query and key. A row that sees no key is -inf and passes a gradient of 0.

    Raises:
        ValueError: shapes, devices, labels or temperature do not fit; the backend does not exist.
        TypeError: query or key is not floating, labels are not integers.

    Note:
        Forward and backward together take 4 N M C operations where only the query needs a gradient, 8 where the key
        does too. The softmax-weighted mean keys are kept for the backward pass: memory O((N + M) C).

    Example:
        >>> z = torch.nn.functional.normalize(torch.eye(3)[None], dim=-1)
        >>> lse, _ = masked_lse(z, z, temperature=1.0)
        >>> bool(torch.allclose(lse, torch.full((1, 3), math.log(math.e + 2))))
        True
    """
    query, key = _operands(query, key, temperature)
    _check_labels(query, key, query_labels, key_labels)
    operator = _operator(query, backend)
    bounded = _bounded(query, key, temperature, unit_norm)
    lse: tuple[Tensor, Tensor | None] = operator.masked_lse(
        query, key, query_labels, key_labels, float(temperature), exclude_self, bounded
    )
    return lse


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
        >>> z = torch.eye(4)[None]
        >>> round(info_nce(z, z, temperature=1.0).item(), 4) == round(math.log(math.e + 3) - 1, 4)
        True
    """
    query, key = _pairs(query, key, temperature)
    if symmetric:
        rows, columns = _pair_lse(query, key, temperature, False, unit_norm, backend)
        same = (query * key.detach()).sum(-1) + (query.detach() * key).sum(-1)
        return (rows + columns - same / temperature).mean() / 2
    lse, _ = masked_lse(query, key, temperature=temperature, unit_norm=unit_norm, backend=backend)
    return (lse - (query * key).sum(-1) / temperature).mean()


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
        >>> z = torch.zeros(1, 3, 2)
        >>> round(all_negative(z, z).item(), 4) == round(math.log(3), 4)
        True
    """
    query, key = _pairs(query, key, temperature)
    exclude_self = not include_same_location
    if symmetric:
        rows, columns = _pair_lse(query, key, temperature, exclude_self, unit_norm, backend)
        return (_log_one_plus_exp(rows).mean() + _log_one_plus_exp(columns).mean()) / 2
    lse, _ = masked_lse(
        query, key, temperature=temperature, exclude_self=exclude_self, unit_norm=unit_norm, backend=backend
    )
    return _log_one_plus_exp(lse).mean()


def _pair_lse(
    query: Tensor, key: Tensor, temperature: float, exclude_self: bool, unit_norm: bool | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of rows (differentiable in the query) and of columns (in the key)."""
    bounded = _bounded(query, key, temperature, unit_norm)
    lse: tuple[Tensor, Tensor] = _operator(query, backend).pair_lse(
        query, key, float(temperature), exclude_self, bounded
    )
    return lse


def _log_one_plus_exp(lse: Tensor) -> Tensor:
    """Softplus that is exact everywhere and has gradient 0 at -inf."""
    return torch.logaddexp(lse, lse.new_zeros(()))


def _operator(query: Tensor, requested: str) -> ModuleType:
    """Choose the backend; the tiled form is ordinary PyTorch and serves every device."""
    return _MODULES[_backend.resolve("contrast", query.device, requested, available=("cpu", "reference"))]


def _bounded(query: Tensor, key: Tensor, temperature: float, unit_norm: bool | None) -> bool:
    """Tell whether all logits are small enough to be exponentiated as they are."""
    if unit_norm is None and query.device.type == "cpu" and query.numel() and key.numel():
        norms = [side.detach().norm(dim=-1).amax() for side in (query, key)]
        largest = float(norms[0] * norms[1])
    else:
        largest = 1.0 if unit_norm else math.inf
    return largest / temperature <= _BOUND[query.dtype]


def _operands(query: Tensor, key: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Check shapes, devices, types and temperature; return both sides in the type of computation."""
    if not (query.is_floating_point() and key.is_floating_point()):
        raise TypeError(f"query and key must be floating, got {query.dtype} and {key.dtype}")
    fits = query.ndim == key.ndim == 3 and query.shape[0] == key.shape[0] and query.shape[2] == key.shape[2] > 0
    if not fits:
        shapes = f"{tuple(query.shape)} and {tuple(key.shape)}"
        raise ValueError(f"expected query (B, N, C) and key (B, M, C) with C > 0, got {shapes}")
    if query.device != key.device:
        raise ValueError(f"query and key must be on one device, got {query.device} and {key.device}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a finite number > 0, got {temperature}")
    dtype = torch.float64 if torch.float64 in (query.dtype, key.dtype) else torch.float32
    return query.to(dtype), key.to(dtype)


def _pairs(query: Tensor, key: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """As ``_operands``, for losses that pair location i with location i."""
    query, key = _operands(query, key, temperature)
    if query.shape != key.shape or query.numel() == 0:
        shapes = f"{tuple(query.shape)} and {tuple(key.shape)}"
        raise ValueError(f"expected query and key of one shape (B, N, C), B and N at least 1, got {shapes}")
    return query, key


def _check_labels(query: Tensor, key: Tensor, query_labels: Tensor | None, key_labels: Tensor | None) -> None:
    """Check that labels come in pairs, are integers and fit their sides."""
    if (query_labels is None) != (key_labels is None):
        raise ValueError("query_labels and key_labels must be given together")
    for name, labels, side in (("query_labels", query_labels, query), ("key_labels", key_labels, key)):
        if labels is None:
            continue
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"{name} must be integers, got {labels.dtype}")
        if labels.shape != side.shape[:2] or labels.device != side.device:
            expected, got = tuple(side.shape[:2]), tuple(labels.shape)
            raise ValueError(f"{name} must be {expected} on {side.device}, got {got} on {labels.device}")
