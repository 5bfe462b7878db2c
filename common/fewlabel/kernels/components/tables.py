# SPDX-License-Identifier: Apache-2.0
"""One entry per component and image: sizes, and what becomes of each pixel. No synchronization with a GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fewlabel.kernels.threads import run_shares, share_count

__all__ = ["lookup", "sizes"]


def sizes(labels: Tensor, width: int) -> Tensor:
    """Count the pixels of each component.

    Args:
        labels: (B, N) int32 in 0 ... width - 1.
        width: entries of an image.

    Returns:
        (B, width) int32; entry 0, the background, holds 0.
    """
    table = torch.zeros(len(labels), width, dtype=torch.int32, device=labels.device)
    if labels.device.type == "cpu":
        _each(lambda b: table[b].copy_(torch.bincount(labels[b], minlength=width)), labels)
    else:
        table.scatter_add_(1, labels.long(), torch.ones_like(labels))
    table[:, 0] = 0
    return table


def lookup(table: Tensor, labels: Tensor) -> Tensor:
    """Return the entry of each pixel's component.

    Args:
        table: (B, width).
        labels: (B, N) int32 in 0 ... width - 1.

    Returns:
        (B, N), of the table's type.
    """
    if labels.device.type != "cpu":
        return table.gather(1, labels.long())
    out = torch.empty(labels.shape, dtype=table.dtype)
    arrays = out.numpy(), table.numpy(), labels.numpy()  # NumPy takes int32 indices as they are
    _each(lambda b: np.take(arrays[1][b], arrays[2][b], out=arrays[0][b], mode="clip"), labels)
    return out


def _each(work: Callable[[int], object], labels: Tensor) -> None:
    """Call ``work`` with the number of each image, images dealt out to threads."""
    shares = share_count(len(labels), labels.device)

    def share(number: int) -> None:
        for b in range(number, len(labels), shares):
            work(b)

    run_shares(share, shares)
