# SPDX-License-Identifier: Apache-2.0
"""Which images the running statistics of BatchNorm are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def kept_statistics(*networks: nn.Module) -> Iterator[None]:
    """Normalize by the statistics of the batch inside the block, as in training, but leave the running ones alone.

    Images that a network never meets at inference, masked by cells or turned into black borders, would shift the
    statistics that it predicts with.

    Args:
        networks: what to watch; modules in evaluation mode are as they always are.

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm2d(1)
        >>> with kept_statistics(norm):
        ...     round(norm(torch.full((2, 1, 2, 2), 5.0)).abs().max().item(), 3)
        0.0
        >>> norm.running_mean.item()
        0.0
    """
    layers = [m for network in networks for m in network.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
