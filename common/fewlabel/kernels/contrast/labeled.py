# SPDX-License-Identifier: Apache-2.0
"""Contrast with several positives: rows of one label, points of one region."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.backend import full_precision
from fewlabel.kernels.contrast.lse import (
    check_labels,
    check_operands,
    compute_type,
    log_one_plus_exp,
    lse_of_others,
    lse_with_own,
    masked_lse,
)
from fewlabel.kernels.regions import RegionIndex, region_sum

__all__ = ["region_contrast", "supcon"]


def supcon(
    features: Tensor,
    labels: Tensor,
    temperature: float = 0.07,
    *,
    variant: str = "out",
    unit_norm: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return the supervised contrastive loss: every other row of the item is a key, those of one's label positives.

    With P(i) the other rows of row i's label and s_ij = z_i . z_j / temperature,

    - ``"out"``: mean_i [ log sum_{j != i} exp s_ij - mean_{p in P(i)} s_ip ], eq. 2 of the paper;
    - ``"in"``: mean_i [ log sum_{j != i} exp s_ij - log mean_{p in P(i)} exp s_ip ], eq. 3.

    The mean runs over all rows of all items that have a positive; rows without are keys only. However many positives
    there are, ``"out"`` needs one log-sum-exp and the sum of the rows of each label.

    Args:
        features: (B, N, C), floating, normalized by the caller; items never see each other.
        labels: (B, N), any integers.
        temperature: > 0.
        variant: ``"out"`` (the better one in the paper) or ``"in"``.
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        Scalar, float32 (float64 for float64 input), differentiable in features; 0 where no row has a positive.

    Raises:
        ValueError: the variant is unknown; see also :func:`masked_lse`.
        TypeError: see :func:`masked_lse`.

    Note:
        4 N^2 C operations forward and backward, memory O(N C), no synchronization, repeats bit-equal.

    References:
        Khosla et al., "Supervised contrastive learning", arXiv:2004.11362.

    Example:
        >>> import math
        >>> z = torch.eye(4)[None]
        >>> round(supcon(z, torch.tensor([[0, 0, 1, 1]]), 1.0).item(), 4) == round(math.log(3), 4)
        True
    """
    if variant not in ("out", "in"):
        raise ValueError(f"expected variant 'out' or 'in', got {variant!r}")
    check_operands(features, features, temperature)
    check_labels(features, features, labels, labels)
    own: Tensor | None
    if variant == "in":  # the long kernel first: a GPU is busy with it while the small ones are launched
        lse, own = lse_with_own(features, labels, temperature, unit_norm, backend)
    else:
        lse, own = masked_lse(
            features, features, temperature=temperature, exclude_self=True, unit_norm=unit_norm, backend=backend
        )
    groups = _groups(labels)
    partners = groups.counts.gather(1, groups.ids.long()) - 1
    some = partners > 0
    if own is None:
        positive = _SumOfMeanPartners.apply(features.to(lse.dtype), groups, partners) / temperature
    else:
        positive = torch.where(some, own - partners.clamp(min=1).to(lse.dtype).log(), 0.0).sum()
    return (torch.where(some, lse, 0.0).sum() - positive) / some.sum().clamp(min=1)


def region_contrast(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    *,
    negatives: str = "image",
    unit_norm: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return the contrast of points sampled from regions: positives in the same region, negatives in the others.

    With s[b, r, i, r', j] = query[b, r, i] . key[b, r', j] / temperature and the negative mass
    N[b, r, i] = sum over valid r' != r and all j of exp s[b, r, i, r', j], the loss is the mean, over b, valid r, i and
    j, of log(1 + N[b, r, i] exp(-s[b, r, i, r, j])). Every positive stands against the negatives alone, not against
    other positives. An item with fewer than two valid regions has no negatives and does not take part in the mean.

    Args:
        query: (B, R, K, C), floating, normalized by the caller: K points of R regions.
        key: (B, R, L, C), points of the same regions, from another view as a rule; L = 1 for one key a region, the
            region's mean. Detach it where it shall receive no gradient.
        valid: (B, R) bool, false where a region is padding; ``None`` where none is.
        temperature: > 0.
        negatives: ``"image"`` (regions of the same item) or ``"batch"`` (of all items).
        unit_norm: see :func:`masked_lse`.
        backend: see :func:`masked_lse`.

    Returns:
        Scalar, >= 0, float32 (float64 for float64 input), differentiable in query and, unless detached, key; 0 where
        no region has negatives.

    Raises:
        ValueError: shapes do not fit, an axis is empty, or ``negatives`` is unknown; see also :func:`masked_lse`.
        TypeError: see :func:`masked_lse`.

    Note:
        Memory O(B R (K + L) C + B R K L): similarities of different regions are never stored.

    References:
        Our reading of the contrastive sampling loss of Yan et al., "Localized region contrast", arXiv:2304.03406, for
        which no code was released.

    Example:
        >>> import math
        >>> z = torch.eye(2).reshape(1, 2, 1, 2)
        >>> round(region_contrast(z, z, temperature=1.0).item(), 4) == round(math.log1p(math.exp(-1)), 4)
        True
    """
    valid = _check_regions(query, key, valid, negatives)
    if negatives == "batch":
        query, key, valid = query.flatten(0, 1)[None], key.flatten(0, 1)[None], valid.flatten()[None]
    b, r, k, _ = query.shape
    regions = torch.arange(r, dtype=torch.int32, device=query.device).expand(b, r)
    query_labels, key_labels, key_mask = (
        side.repeat_interleave(points, dim=1)
        for side, points in ((regions, k), (regions, key.shape[2]), (valid, key.shape[2]))
    )
    mass = lse_of_others(
        query.flatten(1, 2), key.flatten(1, 2), query_labels, key_labels, temperature, key_mask, unit_norm, backend
    )
    dtype = compute_type(query, key)
    positive = _RegionDots.apply(query.flatten(0, 1).to(dtype), key.flatten(0, 1).to(dtype)) / temperature
    contrast = log_one_plus_exp(mass.reshape(b * r, k, 1) - positive).mean(dim=(1, 2))
    taking_part = (valid & (valid.sum(dim=1, keepdim=True) > 1)).flatten()
    return torch.where(taking_part, contrast, 0.0).sum() / taking_part.sum().clamp(min=1)


class _SumOfMeanPartners(torch.autograd.Function):
    """Sum over rows of the mean similarity with the other rows of their label.

    With M_y the sum of the n_y rows of label y it is sum_y (|M_y|^2 - sum_{i in y} |z_i|^2) / (n_y - 1): a row never
    meets its partners, and the gradient, 2 (M_y - z_i) / (n_y - 1), needs no other sum.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, groups: RegionIndex, partners: Tensor) -> Tensor:
        sums = region_sum(z.mT, groups)
        share = _share(partners, z.dtype)
        ctx.save_for_backward(z, sums, groups.ids, share)
        return (_squares(sums) * _share(groups.counts - 1, z.dtype)).sum() - (_squares(z) * share).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, sums, ids, share = ctx.saved_tensors
        others = sums.gather(1, ids.long().unsqueeze(-1).expand_as(z)).sub_(z)
        return others.mul_((2 * upstream[0] * share).unsqueeze(-1)), None, None


class _RegionDots(torch.autograd.Function):
    """Products (B, K, C) x (B, L, C) -> (B, K, L) that autocast cannot reach, in the backward pass either."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor) -> Tensor:
        ctx.save_for_backward(query, key)
        with full_precision(query.device):
            return torch.bmm(query, key.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        with full_precision(query.device):
            grad_query = torch.bmm(upstream[0], key) if ctx.needs_input_grad[0] else None
            grad_key = torch.bmm(upstream[0].mT, query) if ctx.needs_input_grad[1] else None
        return grad_query, grad_key


def _groups(labels: Tensor) -> RegionIndex:
    """Index the rows of each label, labels in ascending order; on a GPU with room for N, which needs no answer."""
    order = labels.argsort(dim=1, stable=True)
    ordered = labels.gather(1, order)
    is_new = torch.zeros_like(order)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    number = is_new.cumsum(dim=1)
    most = labels.shape[1] if labels.device.type != "cpu" else int(number.max()) + 1 if number.numel() else 0
    groups = torch.arange(most + 1, device=labels.device).expand(len(labels), -1).contiguous()
    ids = torch.empty_like(order).scatter_(1, order, number)
    offsets = torch.searchsorted(number, groups, out_int32=True)
    return RegionIndex(ids.int(), order.int(), offsets, groups[:, :-1])


def _share(partners: Tensor, dtype: torch.dtype) -> Tensor:
    """One over the number of partners, 0 where there is none."""
    return torch.where(partners > 0, 1 / partners.clamp(min=1).to(dtype), 0.0)


def _squares(rows: Tensor) -> Tensor:
    """Squared norms of rows."""
    return torch.linalg.vector_norm(rows, dim=-1).square()


def _check_regions(query: Tensor, key: Tensor, valid: Tensor | None, negatives: str) -> Tensor:
    """Check shapes and words; return which regions exist."""
    if negatives not in ("image", "batch"):
        raise ValueError(f"expected negatives 'image' or 'batch', got {negatives!r}")
    fits = query.ndim == key.ndim == 4 and query.shape[:2] == key.shape[:2] and query.shape[3] == key.shape[3]
    if not fits or query.numel() == 0 or key.numel() == 0:
        shapes = f"{tuple(query.shape)} and {tuple(key.shape)}"
        raise ValueError(f"expected query (B, R, K, C) and key (B, R, L, C), no axis empty, got {shapes}")
    if valid is None:
        return torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)
    if valid.dtype != torch.bool or valid.shape != query.shape[:2]:
        got = f"{tuple(valid.shape)} of {valid.dtype}"
        raise ValueError(f"valid must be {tuple(query.shape[:2])} of torch.bool, got {got}")
    return valid
