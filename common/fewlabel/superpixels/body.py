# SPDX-License-Identifier: Apache-2.0
"""The body in a picture: what is brighter than air, in one piece, with its cavities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewlabel.kernels.components import fill_holes, largest_component
from fewlabel.kernels.distance import nearest_seed

__all__ = ["HOLES", "body_mask", "slices"]

HOLES = ("slice", "volume", "keep")
_NEIGHBORS = {2: 4, 3: 6}  # also of the background, as SciPy has it


def body_mask(
    image: Tensor,
    threshold: float,
    *,
    components: int = 1,
    per_slice: bool = False,
    holes: str = "slice",
    closing_mm: float = 0.0,
    slice_axis: int = -1,
    spacing_mm: Sequence[float] | None = None,
) -> Tensor:
    """Mask the body: the largest connected parts above a threshold, with their gaps closed and their holes filled.

    Args:
        image: (C, H, W) or (C, D, H, W), real; the mean over channels counts.
        threshold: in the unit of the image (HU, say); pixels above it may belong to the body. -300 HU separates the
            body from air and most cushions.
        components: how many parts to keep, for arms beside a trunk, say.
        per_slice: choose them in each slice of a volume by itself; else in the volume as a whole.
        holes: ``slice`` fills what is enclosed in its slice, so also airways, which are open at some end of every
            volume; ``volume`` fills what is enclosed in 3-D only; ``keep`` fills nothing. In 2-D both fillings agree.
        closing_mm: gaps up to about twice as wide are closed first, as fat leaves where a window has made it black.
        slice_axis: which axis of space counts the slices of a volume.
        spacing_mm: distance of neighbors along each axis of space; None for 1 mm.

    Returns:
        (1, H, W) or (1, D, H, W), bool, on the image's device.

    Raises:
        ValueError: the image is neither, or ``holes`` is unknown.
        TypeError: the image is complex.

    Example:
        >>> image = torch.tensor([[[0, 5, 5, 5, 0, 5], [0, 5, 0, 5, 0, 0], [0, 5, 5, 5, 0, 0]]])
        >>> body_mask(image, 1).int().tolist()
        [[[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]]]
    """
    if image.is_complex():
        raise TypeError(f"image must be real, got {image.dtype}")
    if image.ndim not in (3, 4):
        raise ValueError(f"expected an image (C, H, W) or (C, D, H, W), got {tuple(image.shape)}")
    if holes not in HOLES:
        raise ValueError(f"holes must be one of {', '.join(HOLES)}, got {holes!r}")
    mask = image.as_subclass(Tensor).float().mean(0) > threshold
    if closing_mm > 0:
        mask = _closed(mask, closing_mm, spacing_mm or (1.0,) * mask.ndim)
    volume = mask.ndim == 3
    stack = slices(mask, slice_axis) if volume and per_slice else mask.unsqueeze(0)
    stack = largest_component(stack, _NEIGHBORS[stack.ndim - 1], k=components)
    mask = stack.movedim(0, slice_axis) if volume and per_slice else stack[0]
    if volume and holes == "slice":
        mask = fill_holes(slices(mask, slice_axis), _NEIGHBORS[2]).movedim(0, slice_axis)
    elif holes != "keep":
        mask = fill_holes(mask, _NEIGHBORS[mask.ndim])
    return mask.unsqueeze(0).contiguous()


def _closed(mask: Tensor, radius: float, spacing: Sequence[float]) -> Tensor:
    """Dilate, then erode by a ball; what lies beyond the image is no gap and no wall."""
    margin = [math.ceil(radius / step) for step in spacing]
    padded = torch.nn.functional.pad(mask, [n for step in reversed(margin) for n in (step, step)])
    grown = nearest_seed(padded, mask.ndim, spacing=spacing)[0] <= radius
    closed = nearest_seed(~grown, mask.ndim, spacing=spacing)[0] > radius
    return closed[tuple(slice(n, n + size) for n, size in zip(margin, mask.shape, strict=True))]


def slices(volume: Tensor, axis: int) -> Tensor:
    """Return the slices of (D, H, W) along an axis as a batch; ``movedim(0, axis)`` undoes it.

    Args:
        volume: three axes.
        axis: -3 to 2.

    Raises:
        ValueError: there is no such axis.
    """
    if volume.ndim != 3 or not -3 <= axis < 3:
        raise ValueError(f"expected slices of (D, H, W) along an axis -3 to 2, got {tuple(volume.shape)}, {axis}")
    return volume.movedim(axis, 0)
