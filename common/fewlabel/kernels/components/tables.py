# SPDX-License-Identifier: Apache-2.0
"""One entry per component and image: sizes, and what becomes of each pixel. No synchronization with a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.tasks import run_tasks
from fewlabel.kernels.threads import share_count

__all__ = ["lookup", "sizes"]

_STRETCH = 2**18  # pixels that are worth a thread


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
        counts, numbers = table.numpy(), labels.numpy()
        shares = share_count(len(labels), labels.device)
        run_tasks(lambda b, _: _count(numbers[b], counts[b]), len(labels), shares)
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
    entries, numbers, found = table.numpy(), labels.numpy(), out.numpy()
    stretches = [(b, slice(i, i + _STRETCH)) for b in range(len(labels)) for i in range(0, labels.shape[1], _STRETCH)]

    def look(task: int, _: int) -> None:
        b, pixels = stretches[task]
        _look_up(entries[b], numbers[b, pixels], found[b, pixels])

    run_tasks(look, len(stretches), share_count(len(stretches), labels.device))
    return out


@compiled
def _count(labels: NDArray[np.int32], table: NDArray[np.int32]) -> None:
    for i in range(labels.shape[0]):
        table[labels[i]] += 1


@compiled
def _look_up(table: NDArray[Any], labels: NDArray[np.int32], out: NDArray[Any]) -> None:
    for i in range(labels.shape[0]):
        out[i] = table[labels[i]]
