# SPDX-License-Identifier: Apache-2.0
"""What all operators on components share: one layout and few types of values, and the choice of the backend."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.grid import as_volumes, available

__all__ = ["components", "relabeled", "values_of"]

_COMPUTED = {torch.bool: torch.uint8} | dict.fromkeys(
    (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32), torch.int32
)


def values_of(mask: Tensor, spatial_dims: int, by_label: bool) -> Tensor:
    """Return (B, D, H, W): 0 and 1 in uint8, and nothing else in that type, or labels in int32 or int64; contiguous."""
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected a tensor of bool or integers, got {got}")
    volumes = as_volumes(mask, spatial_dims)
    if by_label:
        return volumes.to(_COMPUTED.get(mask.dtype, torch.int64))
    return (volumes if mask.dtype == torch.bool else volumes != 0).view(torch.uint8)


def components(values: Tensor, connectivity: int, backend: str) -> tuple[Tensor, Tensor]:
    """Return labels (B, D, H, W) and counts (B,), int32."""
    operator = _operator(values, backend)
    if values.numel() == 0:
        return _nothing(values)
    found: tuple[Tensor, Tensor] = operator.components(values, connectivity)
    return found


def relabeled(values: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Return labels (B, D, H, W) numbered in the order in which they appear, and counts (B,), int32."""
    operator = _operator(values, backend)
    if values.numel() == 0:
        return _nothing(values)
    numbers, counts = operator.relabel(values.flatten(1))
    return numbers.view(values.shape), counts


def _operator(values: Tensor, requested: str) -> ModuleType:
    chosen = _backend.resolve("components", values.device, requested, available=available(values.device))
    return _backend.form("components", chosen)


def _nothing(values: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and counts of images without pixels."""
    return values.int(), torch.zeros(len(values), dtype=torch.int32, device=values.device)
