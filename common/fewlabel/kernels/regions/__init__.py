# SPDX-License-Identifier: Apache-2.0
"""Means, sums and maxima of features over regions of a label map, and random regions and pixels from them.

A label map is indexed once (:func:`region_index`); the index serves any number of feature maps and samples, moves
between devices and is stored as plain tensors. Features are read in the layout that the network made them in:
(B, C, *spatial), 2-D or 3-D, also ``channels_last``. Sums are kept in float32 or better, in an order that does not
depend on threads or timing, and the gradient of a sum is a gather. Samples follow from (seed, step, image, region,
draw) by integer arithmetic alone and are therefore the same on every device.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.regions.index import RegionIndex, region_index, stack_indices
from fewlabel.kernels.regions.sample import sample_pixels, sample_regions

__all__ = [
    "RegionIndex",
    "region_index",
    "region_max",
    "region_mean",
    "region_sum",
    "sample_pixels",
    "sample_regions",
    "stack_indices",
]


def region_sum(features: Tensor, index: RegionIndex, *, backend: str = "auto") -> Tensor:
    """Return the sum of the features over each region.

    Args:
        features: (B, C, *spatial), floating; (B, C, S) planes and ``channels_last`` rows are read without a copy.
        index: of a label map (B, *spatial) on the same device.
        backend: ``auto``, ``cpu`` (compiled; CPU only), ``triton`` (GPU only) or ``reference``; ``FEWLABEL_BACKEND``
            replaces ``auto``.

    Returns:
        (B, L, C), float32, or float64 for float64 features; 0 for an empty region; differentiable in the features
        once. The gradient has the type of the features and, but for ``reference``, their layout.

    Raises:
        TypeError: features are not floating.
        ValueError: features and index do not fit; the backend does not exist.

    Note:
        Reads the features once; keeps nothing of them for the backward pass, which writes the gradient once. Other
        memory is O(B L C) and, backward on a CPU, up to 8 bytes for each pixel of an image and thread. Repeats are
        bit-equal, on a CPU for any number of threads; only ``reference`` on a GPU sums in an order that changes.

    Example:
        >>> index = region_index(torch.tensor([[0, 0, 1], [1, -1, 1]]))
        >>> region_sum(torch.arange(6.0).view(1, 1, 2, 3), index).squeeze(2).tolist()
        [[1.0, 10.0]]
    """
    operator = _operator(features, index, backend)
    total: Tensor = operator.region_sum(features, index)
    return total


def region_mean(features: Tensor, index: RegionIndex, *, backend: str = "auto") -> Tensor:
    """Return the mean of the features over each region.

    Args:
        features: see :func:`region_sum`.
        index: see :func:`region_sum`.
        backend: see :func:`region_sum`.

    Returns:
        (B, L, C) as :func:`region_sum`. An empty region has mean 0 and passes no gradient: ``index.counts > 0`` tells
        which means are valid.

    Raises:
        TypeError: see :func:`region_sum`.
        ValueError: see :func:`region_sum`.

    Example:
        >>> index = region_index(torch.tensor([[0, 0, 1], [1, -1, 1]]), num_labels=3)
        >>> region_mean(torch.arange(6.0).view(1, 1, 2, 3), index).squeeze(2).tolist()
        [[0.5, 3.3333332538604736, 0.0]]
    """
    operator = _operator(features, index, backend)
    mean: Tensor = operator.region_sum(features, index, mean=True)
    return mean


def region_max(features: Tensor, index: RegionIndex, *, backend: str = "auto") -> Tensor:
    """Return the largest value of the features over each region.

    Args:
        features: see :func:`region_sum`.
        index: see :func:`region_sum`.
        backend: see :func:`region_sum`.

    Returns:
        (B, L, C) in the type of the features; 0 for an empty region, NaN where the region has one. The gradient goes
        to the first pixel, in raster order, that has the largest value.

    Raises:
        TypeError: see :func:`region_sum`.
        ValueError: see :func:`region_sum`.

    Example:
        >>> index = region_index(torch.tensor([[0, 0, 1], [1, -1, 1]]))
        >>> region_max(torch.arange(6.0).view(1, 1, 2, 3), index).squeeze(2).tolist()
        [[1.0, 5.0]]
    """
    operator = _operator(features, index, backend)
    flat = features.flatten(2)
    pixels: Tensor = operator.region_argmax(flat.detach(), index)
    if flat.shape[2] == 0:
        return flat.sum(dim=2).unsqueeze(1).expand(pixels.shape)
    return flat.gather(2, pixels.clamp(min=0).mT).mT.masked_fill(pixels < 0, 0)


def _operator(features: Tensor, index: RegionIndex, requested: str) -> ModuleType:
    """Check the operands and return the module of the backend to use."""
    if not features.is_floating_point():
        raise TypeError(f"features must be floating, got {features.dtype}")
    shape, expected, device = features.shape, index.ids.shape, features.device
    if (*shape[:1], *shape[2:]) != expected or len(shape) < 2:
        wanted = ", ".join(map(str, (expected[0], "C", *expected[1:])))
        raise ValueError(f"expected features ({wanted}) for this index, got {tuple(shape)}")
    if device != index.device:
        raise ValueError(f"features and index must be on one device, got {device} and {index.device}")
    return _backend.form("regions", _backend.resolve("regions", device, requested, available=_available(device)))


def _available(device: torch.device) -> tuple[str, ...]:
    """Backends for a device, best first; on a CPU the GPU kernel runs where Triton interprets."""
    if device.type == "cpu":
        is_interpreted = os.environ.get("TRITON_INTERPRET") == "1" and _backend.has_triton()
        return ("cpu", "reference", "triton") if is_interpreted else ("cpu", "reference")
    return ("triton", "reference") if device.type == "cuda" and _backend.has_triton() else ("reference",)
