# SPDX-License-Identifier: Apache-2.0
"""Dense log-sum-exp of similarities: the oracle. Stores the whole N x M matrix; autograd does the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewlabel.kernels.backend import full_precision
from fewlabel.kernels.contrast._tiles import Pairs


def masked_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Dense form of :func:`fewlabel.kernels.contrast.masked_lse`; ``pairs.bounded`` changes nothing here."""
    with full_precision(query.device):
        logits = torch.einsum("bnc,bmc->bnm", query, key) / pairs.temperature
    seen = torch.ones_like(logits, dtype=torch.bool)
    if pairs.exclude_self:
        seen.diagonal(dim1=1, dim2=2).fill_(False)
    if pairs.key_mask is not None:
        seen &= pairs.key_mask[:, None, :]
    lse_all = _lse(logits, seen)
    if pairs.query_labels is None or pairs.key_labels is None:
        return lse_all, None
    same = pairs.query_labels[:, :, None] == pairs.key_labels[:, None, :]
    return lse_all, _lse(logits, seen & (same if pairs.same_label else ~same))


def pair_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone."""
    rows, _ = masked_lse(query, key.detach(), pairs)
    columns, _ = masked_lse(key, query.detach(), pairs)
    return rows, columns


def _lse(logits: Tensor, seen: Tensor) -> Tensor:
    """Log-sum-exp over the last axis where ``seen``; a row that sees nothing gets -inf and a gradient of 0."""
    if logits.shape[-1] == 0:
        return logits.sum(dim=-1) - math.inf
    some = seen.any(dim=-1)
    lse = torch.logsumexp(logits.masked_fill(~seen & some.unsqueeze(-1), -math.inf), dim=-1)
    return torch.where(some, lse, -math.inf)
