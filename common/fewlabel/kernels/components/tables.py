# SPDX-License-Identifier: Apache-2.0
"""One entry per component and image: sizes, and what becomes of each pixel. No synchronization with a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lookup", "sizes"]


def sizes(labels: Tensor, width: int) -> Tensor:
    """Count the pixels of each component.

    Args:
        labels: (B, N) int32 in 0 ... width - 1.
        width: entries of an image.

    Returns:
        (B, width) int32; entry 0, the background, holds 0.
    """
    if labels.device.type == "cpu":
        table = torch.stack([torch.bincount(row, minlength=width) for row in labels]).int()
    else:
        table = torch.zeros(len(labels), width, dtype=torch.int32, device=labels.device)
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
    if labels.device.type == "cpu":  # NumPy takes int32 indices as they are
        return torch.stack([torch.from_numpy(t.numpy().take(row.numpy())) for t, row in zip(table, labels, strict=True)])
    return table.gather(1, labels.long())
