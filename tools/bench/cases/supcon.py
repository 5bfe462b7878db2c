# SPDX-License-Identifier: Apache-2.0
"""A set of embeddings against itself, with labels: the kernel, dense SupCon in two forms, and row chunks.

*dense* stores as few matrices as autograd allows; *published* takes the steps of the code that is in common use, each
of which stores another matrix; chunks of rows go under activation checkpointing.
pytorch-metric-learning's loss takes part where that package is installed (``pip install -e ".[bench]"``).
Modes: the whole loss, and its log-sum-exp alone, which is where the N^2 operations are.
GPU problems are bfloat16; there the dense form has its similarities in float32, as autocast would.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from fewlabel.kernels import contrast
from tools.bench.case import Case, Implementation, Problem, Work

TEMPERATURE, CLASSES, C = 0.07, 20, 128
CPU_SIZES = {4096: 5, 16384: 3}  # N: rounds; all forms of the second take 80 seconds and 8 GB a round
CUDA_SIZES = {4096: 30, 16384: 30, 32768: 10, 49152: 10, 65536: 10, 100_000: 10}
MOST = {"dense": 49152, "published": 32768, "metric-learning": 4096}  # rows; matrices of N x N fill the memory


def dense(features: Tensor, labels: Tensor) -> Tensor:
    """Return the loss from all similarities, stored; every row has a positive."""
    return _rows(features, features, labels, labels, 0) / features.shape[1]


def published(features: Tensor, labels: Tensor) -> Tensor:
    """Return the loss by the usual steps; written for this benchmark, no line of it is anybody's.

    The steps of the authors' code and of most others: logits less the largest of their row, a float matrix that marks
    rows of one label, another that leaves out the diagonal, exponentials times the latter, the log of their sum, and
    the mean of log-probabilities over marks.
    """
    similarities = (features @ features.mT).float() / TEMPERATURE
    logits = similarities - similarities.max(dim=2, keepdim=True).values.detach()
    same = (labels[:, :, None] == labels[:, None, :]).float()
    others = 1 - torch.eye(features.shape[1], device=features.device)
    positive = same * others
    mass = (logits.exp() * others).sum(dim=2, keepdim=True)
    log_probability = logits - mass.log()
    return -((positive * log_probability).sum(dim=2) / positive.sum(dim=2)).mean()


def chunked(features: Tensor, labels: Tensor, rows: int = 1024) -> Tensor:
    """Return the same from chunks of rows whose similarities are computed again in the backward pass."""
    parts = [
        checkpoint(
            _rows,
            features[:, start : start + rows],
            features,
            labels[:, start : start + rows],
            labels,
            start,
            use_reentrant=False,
        )
        for start in range(0, features.shape[1], rows)
    ]
    return torch.stack(parts).sum() / features.shape[1]


def kernel(features: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of the kernel that ``auto`` chooses."""
    return contrast.supcon(features, labels, TEMPERATURE, unit_norm=True)


def metric_learning(features: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of pytorch-metric-learning, which knows no batch of sets."""
    from pytorch_metric_learning.losses import SupConLoss

    loss = SupConLoss(temperature=TEMPERATURE)
    return torch.stack([loss(rows, ids) for rows, ids in zip(features, labels, strict=True)]).mean()


def kernel_lse(features: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over rows of the log-sum-exp over all other rows."""
    lse, _ = contrast.masked_lse(features, features, temperature=TEMPERATURE, exclude_self=True, unit_norm=True)
    return lse.sum()


def dense_lse(features: Tensor, labels: Tensor) -> Tensor:
    """Return the same from all similarities, stored."""
    return _lse_rows(features, features, 0)


def chunked_lse(features: Tensor, labels: Tensor, rows: int = 1024) -> Tensor:
    """Return the same from chunks of rows whose similarities are computed again in the backward pass."""
    starts = range(0, features.shape[1], rows)
    parts = [checkpoint(_lse_rows, features[:, s : s + rows], features, s, use_reentrant=False) for s in starts]
    return torch.stack(parts).sum()


def _lse_rows(query: Tensor, key: Tensor, start: int) -> Tensor:
    """Sum of the log-sum-exp of some rows."""
    logits = (query @ key.mT).float() / TEMPERATURE
    own = torch.zeros_like(logits, dtype=torch.bool)
    own.diagonal(start, dim1=1, dim2=2).fill_(True)
    return torch.logsumexp(logits.masked_fill(own, -torch.inf), dim=2).sum()


def _rows(query: Tensor, key: Tensor, query_labels: Tensor, key_labels: Tensor, start: int) -> Tensor:
    """Sum of the losses of some rows."""
    logits = (query @ key.mT).float() / TEMPERATURE
    own = torch.zeros_like(logits, dtype=torch.bool)
    own.diagonal(start, dim1=1, dim2=2).fill_(True)
    positive = (query_labels[:, :, None] == key_labels[:, None, :]) & ~own
    log_ratio = logits - torch.logsumexp(logits.masked_fill(own, -torch.inf), dim=2, keepdim=True)
    return -(torch.where(positive, log_ratio, 0.0).sum(dim=2) / positive.sum(dim=2)).sum()


def _make(n: int, dtype: torch.dtype, backward: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit vectors around the center of their class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (1, n), generator=generator, dtype=torch.int32)
    centers = torch.randn(CLASSES, C, generator=generator)
    features = normalize(centers[labels.long()] + 2 * torch.randn(1, n, C, generator=generator), dim=-1)
    return features.to(device, dtype).requires_grad_(backward), labels.to(device)


LIBRARY: dict[str, Implementation] = {"metric-learning": metric_learning}
FORMS: dict[str, dict[str, Implementation]] = {
    "": {"kernel": kernel, "dense": dense, "published": published, "chunked": chunked}
    | (LIBRARY if find_spec("pytorch_metric_learning") else {}),
    "log-sum-exp, ": {"kernel": kernel_lse, "dense": dense_lse, "chunked": chunked_lse},
}


def _problem(asked: str, n: int, backward: bool, device: str, most: int) -> Problem:
    dtype, mode = torch.bfloat16 if device == "cuda" else torch.float32, "forward+backward" if backward else "forward"
    pairs, size = 1e-9 * n * n, torch.finfo(dtype).bits // 8
    return Problem(
        columns={"mode": f"{asked}{mode}", "B": 1, "N": n, "C": C, "dtype": str(dtype).removeprefix("torch.")},
        work=Work((4 if backward else 1) * C * pairs, pairs if backward else pairs / 2, 1e-9 * size * 2 * n * C, dtype),
        make=partial(_make, n, dtype, backward),
        implementations=FORMS[asked],
        backward=backward,
        skip=[name for name, most in MOST.items() if n > most],
        device=device,
        rounds=most,
    )


CASE = Case(
    "supcon",
    "dense",
    [
        _problem(asked, n, backward, device, most)
        for asked in FORMS
        for device, sizes in (("cpu", CPU_SIZES), ("cuda", CUDA_SIZES))
        for n, most in sizes.items()
        for backward in (False, True)
    ],
)
