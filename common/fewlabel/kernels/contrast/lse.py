# SPDX-License-Identifier: Apache-2.0
"""Validation, choice of the backend, and the one quantity on which the contrast operators rest."""

from __future__ import annotations

import math
import os
from types import ModuleType

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.contrast import cpu
from fewlabel.kernels.contrast._tiles import Pairs

__all__ = ["masked_lse"]

_BOUND = {torch.float64: 300.0}  # largest |logit| that needs no shift before exp
_BOUND_FLOAT32 = 40.0
_TRITON_CHANNELS = {2: 256, 4: 128}  # by bytes of a number: beyond, tiles do not fit


def masked_lse(
    query: Tensor,
    key: Tensor,
    query_labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    temperature: float = 0.07,
    *,
    exclude_self: bool = False,
    key_mask: Tensor | None = None,
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
        key_mask: (B, M) bool, false where a key does not exist (padding); ``None`` where all do.
        unit_norm: ``True`` promises rows of L2 norm <= 1 (rows normalized in the L1 or L2 sense are), which saves
            the running maximum; if the promise is broken beyond float32, the result is inf. ``False`` promises nothing.
            ``None`` looks at the norms where that costs no synchronization (CPU), else promises nothing.
        backend: ``auto``, ``cpu`` (tiled, any device), ``triton`` (CUDA; half types with C <= 256, float32 with
            C <= 128) or ``reference`` (dense); ``FEWLABEL_BACKEND`` replaces ``auto``.

    Returns:
        ``lse_all`` and ``lse_neg`` (``None`` without labels): (B, N), float32, or float64 for float64 input,
        differentiable in query and key. A row that sees no key is -inf and passes a gradient of 0.

    Raises:
        ValueError: shapes, devices, labels or temperature do not fit; the backend does not exist.
        TypeError: query or key is not floating, labels are not integers.

    Note:
        Forward and backward together take 4 N M C operations where only the query needs a gradient, 8 where the key
        does too, and 4 where the key *is* the query (the same tensor object, labels too). Memory O((N + M) C).

    Example:
        >>> z = torch.nn.functional.normalize(torch.eye(3)[None], dim=-1)
        >>> lse, _ = masked_lse(z, z, temperature=1.0)
        >>> bool(torch.allclose(lse, torch.full((1, 3), math.log(math.e + 2))))
        True
    """
    return _lse(query, key, query_labels, key_labels, temperature, exclude_self, key_mask, unit_norm, backend, False)


def lse_with_own(
    features: Tensor, labels: Tensor, temperature: float, unit_norm: bool | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Return each row's log-sum-exp over the other rows, and over the other rows of its own label.

    As :func:`masked_lse` of features with themselves, except that the second sum, lse_same, is over equal labels: the
    difference of lse_all and lse_neg would cancel.

    Args:
        features: (B, N, C), floating.
        labels: (B, N) integers.
        temperature: > 0.
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        ``lse_all`` and ``lse_same``, (B, N); -inf for a row without partners.
    """
    lse_all, lse_same = _lse(features, features, labels, labels, temperature, True, None, unit_norm, backend, True)
    assert lse_same is not None
    return lse_all, lse_same


def lse_of_others(
    query: Tensor,
    key: Tensor,
    query_labels: Tensor,
    key_labels: Tensor,
    temperature: float,
    key_mask: Tensor,
    unit_norm: bool | None,
    backend: str,
) -> Tensor:
    """Return each query's log-sum-exp over the keys of another label alone, lse_neg of :func:`masked_lse`.

    The tiled form takes half the operations of both sums.

    Args:
        query: (B, N, C), floating.
        key: (B, M, C), floating.
        query_labels: (B, N) integers.
        key_labels: (B, M) integers.
        temperature: > 0.
        key_mask: (B, M) bool, false where a key does not exist.
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        (B, N); -inf for a row without such keys.
    """
    mask = None if key_mask.device.type == "cpu" and bool(key_mask.all()) else key_mask
    _, others = _lse(
        query, key, query_labels, key_labels, temperature, False, mask, unit_norm, backend, False, second_only=True
    )
    assert others is not None
    return others


def _lse(
    query: Tensor,
    key: Tensor,
    query_labels: Tensor | None,
    key_labels: Tensor | None,
    temperature: float,
    exclude_self: bool,
    key_mask: Tensor | None,
    unit_norm: bool | None,
    backend: str,
    same_label: bool,
    second_only: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Check, choose, compute."""
    check_operands(query, key, temperature)
    check_labels(query, key, query_labels, key_labels)
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != key.shape[:2]):
        got = f"{tuple(key_mask.shape)} of {key_mask.dtype}"
        raise ValueError(f"key_mask must be {tuple(key.shape[:2])} of torch.bool, got {got}")
    operator = operator_for(query, key, backend)
    query, key = operands(query, key, operator)
    bounded = bounded_logits(query, key, temperature, unit_norm)
    pairs = Pairs(
        temperature=float(temperature),
        exclude_self=exclude_self,
        bounded=bounded,
        query_labels=query_labels,
        key_labels=key_labels,
        same_label=same_label,
        key_mask=key_mask,
        second_only=second_only and operator is cpu,
    )
    lse: tuple[Tensor, Tensor | None] = operator.masked_lse(query, key, pairs)
    return lse


def operator_for(query: Tensor, key: Tensor, requested: str) -> ModuleType:
    """Return the module of the backend: Triton where it fits, else the tiled form, which serves every device."""
    available = ["cpu", "reference"]
    if _fits_triton(query, key):  # first on a GPU; elsewhere there is only Triton's interpreter, for tests
        available.insert(0 if query.device.type == "cuda" else 2, "triton")
    choice = _backend.resolve("contrast", query.device, requested, available=available)
    return _backend.form("contrast", choice)


def _fits_triton(query: Tensor, key: Tensor) -> bool:
    """Tell whether the Triton kernels exist here and take these operands."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    on_nvidia = query.device.type == "cuda" and torch.version.hip is None
    itemsize = query.element_size() if query.dtype == key.dtype else compute_type(query, key).itemsize
    fits = query.shape[-1] <= _TRITON_CHANNELS.get(itemsize, 0) and key.shape[1] > 0
    return fits and (interpreted or on_nvidia) and _backend.has_triton()


def bounded_logits(query: Tensor, key: Tensor, temperature: float, unit_norm: bool | None) -> bool:
    """Tell whether all logits are small enough to be exponentiated as they are."""
    if unit_norm is None and query.device.type == "cpu" and query.numel() and key.numel():
        norms = [side.detach().norm(dim=-1).amax() for side in (query, key)]
        largest = float(norms[0] * norms[1])
    else:
        largest = 1.0 if unit_norm else math.inf
    return largest / temperature <= _BOUND.get(query.dtype, _BOUND_FLOAT32)


def compute_type(query: Tensor, key: Tensor) -> torch.dtype:
    """Return float64 where a side is, else float32."""
    return torch.float64 if torch.float64 in (query.dtype, key.dtype) else torch.float32


def operands(query: Tensor, key: Tensor, operator: ModuleType) -> tuple[Tensor, Tensor]:
    """Return both sides in the type that the backend takes; one tensor stays one tensor."""
    dtype = compute_type(query, key)
    if operator.__name__.endswith(".triton") and query.dtype == key.dtype:
        return query, key  # half types go to the tensor cores as they are, sums are in float32
    one = key is query
    query = query.to(dtype)
    return query, query if one else key.to(dtype)


def check_operands(query: Tensor, key: Tensor, temperature: float) -> None:
    """Check shapes, devices, types and temperature."""
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


def check_labels(query: Tensor, key: Tensor, query_labels: Tensor | None, key_labels: Tensor | None) -> None:
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


def log_one_plus_exp(lse: Tensor) -> Tensor:
    """Softplus that is exact everywhere and has gradient 0 at -inf."""
    return torch.logaddexp(lse, lse.new_zeros(()))
