# SPDX-License-Identifier: Apache-2.0
"""Keep, drop and fill connected components; values that stay are what they were."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels.components._dispatch import components, values_of
from fewlabel.kernels.components.tables import lookup, sizes
from fewlabel.kernels.grid import overlap, spatial_dims_of

__all__ = ["fill_holes", "largest_component", "remove_small"]


def largest_component(
    mask: Tensor, connectivity: int, *, k: int = 1, by_label: bool = False, backend: str = "auto"
) -> Tensor:
    """Keep the largest connected component of each image, or of each label of each image.

    Args:
        mask: (..., H, W) or (..., D, H, W), bool or integers; 0 is background.
        connectivity: 4 or 8 (2-D), 6, 18 or 26 (3-D).
        k: how many to keep, >= 1. Of components of one size the first in raster order comes first.
        by_label: components hold one value, and ``k`` are kept of each value.
        backend: see :func:`fewlabel.kernels.components.connected_components`.

    Returns:
        The mask with 0 elsewhere; same shape and type, new memory.

    Raises:
        ValueError: ``k`` < 1; see also :func:`fewlabel.kernels.components.connected_components`.
        TypeError: the mask is neither bool nor integers.

    Example:
        >>> largest_component(torch.tensor([[1, 0, 2, 2], [0, 0, 0, 1]]), 4, by_label=True).tolist()
        [[1, 0, 2, 2], [0, 0, 0, 0]]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    values, labels, width = _labeled(mask, connectivity, by_label, backend)
    table = sizes(labels, width)
    is_one = k == 1 and not by_label
    order = table.argmax(1, keepdim=True) if is_one else table.argsort(dim=1, descending=True, stable=True)
    if by_label:
        value_of = values.new_zeros(table.shape).scatter_(1, labels.long(), values.flatten(1))
        order = order.gather(1, value_of.gather(1, order).argsort(dim=1, stable=True))
        rank = _place_in_group(value_of.gather(1, order))
    else:
        rank = torch.arange(order.shape[1], device=mask.device).expand_as(order)
    keep = torch.zeros_like(table, dtype=torch.bool).scatter_(1, order, rank < k)
    return _kept(mask, keep & (table > 0), labels)


def remove_small(
    mask: Tensor, connectivity: int, min_size: int, *, by_label: bool = False, backend: str = "auto"
) -> Tensor:
    """Drop connected components of fewer than ``min_size`` pixels.

    Args:
        mask: (..., H, W) or (..., D, H, W), bool or integers; 0 is background.
        connectivity: 4 or 8 (2-D), 6, 18 or 26 (3-D).
        min_size: pixels that a component must have to stay.
        by_label: components hold one value.
        backend: see :func:`fewlabel.kernels.components.connected_components`.

    Returns:
        The mask with 0 in place of what is dropped; same shape and type, new memory.

    Raises:
        ValueError: see :func:`fewlabel.kernels.components.connected_components`.
        TypeError: the mask is neither bool nor integers.

    Example:
        >>> remove_small(torch.tensor([[7, 0, 7], [7, 0, 0]]), 4, min_size=2).tolist()
        [[7, 0, 0], [7, 0, 0]]
    """
    _, labels, width = _labeled(mask, connectivity, by_label, backend)
    table = sizes(labels, width)
    return _kept(mask, (table >= min_size) & (table > 0), labels)


def fill_holes(mask: Tensor, background_connectivity: int, *, backend: str = "auto") -> Tensor:
    """Fill the holes: components of the background that do not touch the border of the image.

    A hole gets the value that surrounds it. Between several values (of the pixels that share an edge or face with the
    hole) it stays open: no label grows into a gap between two.

    Args:
        mask: (..., H, W) or (..., D, H, W), bool or integers; 0 is background.
        background_connectivity: 4 or 8 (2-D), 6, 18 or 26 (3-D), of the background. With 4 a diagonal line closes a
            hole, with 8 it does not; SciPy's ``binary_fill_holes`` takes 4 and 6.
        backend: see :func:`fewlabel.kernels.components.connected_components`.

    Returns:
        The mask with its holes filled; same shape and type, new memory.

    Raises:
        ValueError: see :func:`fewlabel.kernels.components.connected_components`.
        TypeError: the mask is neither bool nor integers.

    Example:
        >>> ring = torch.tensor([[3, 3, 3, 0], [3, 0, 3, 3], [3, 3, 0, 0]])
        >>> fill_holes(ring, 4).tolist()
        [[3, 3, 3, 0], [3, 3, 3, 3], [3, 3, 0, 0]]
        >>> bool((fill_holes(ring, 8) == ring).all())
        True
    """
    dims = spatial_dims_of(background_connectivity)
    values = values_of(mask, dims, by_label=True)
    background = (values == 0).view(torch.uint8)
    holes, counts = components(background, background_connectivity, backend)
    width = _width(values, counts, is_mask=True)
    closed = torch.ones(len(values), width, dtype=torch.bool, device=mask.device)
    closed[:, :1] = False
    for axis in range(4 - dims, 4):
        for face in (slice(None, 1), slice(-1, None)):
            closed.scatter_(1, holes.transpose(1, axis)[:, face].flatten(1).long(), False)
    filling = _surrounding(values, holes, closed, dims) if mask.dtype != torch.bool else closed
    inside = lookup(filling.to(mask.dtype), holes.flatten(1)).view(mask.shape)
    return torch.where(inside != 0, inside, mask.as_subclass(Tensor))


def _surrounding(values: Tensor, holes: Tensor, closed: Tensor, dims: int) -> Tensor:
    """Return for each closed hole the value around it, 0 where there are several."""
    limits = torch.iinfo(values.dtype)
    low = values.new_full((closed.numel(),), limits.max)
    high = values.new_full((closed.numel(),), limits.min)
    rows = torch.arange(0, closed.numel(), closed.shape[1], device=values.device).view(-1, 1, 1, 1)
    for axis in range(4 - dims, 4):
        step = [0, 0, 0]
        step[axis - 1] = 1
        pair = overlap((step[0], step[1], step[2]), values.shape)
        for here, there in (pair, pair[::-1]):
            hole, value = holes[here], values[there]
            touch = (hole != 0) & (value != 0)
            entry = rows + torch.where(touch, hole, 0)  # what is no contact goes to the entry of the foreground
            if values.device.type == "cpu":  # few pixels touch; on a GPU it would take a synchronization to find them
                entry, value = entry[touch], value[touch]
            low.scatter_reduce_(0, entry.flatten(), value.flatten(), "amin")
            high.scatter_reduce_(0, entry.flatten(), value.flatten(), "amax")
    low, high = low.view_as(closed), high.view_as(closed)
    return torch.where(closed & (low == high), low, 0)


def _labeled(mask: Tensor, connectivity: int, by_label: bool, backend: str) -> tuple[Tensor, Tensor, int]:
    """Values (B, D, H, W), labels (B, N), entries that a table of components needs."""
    values = values_of(mask, spatial_dims_of(connectivity), by_label)
    labels, counts = components(values, connectivity, backend)
    return values, labels.flatten(1), _width(values, counts, not by_label)


def _width(values: Tensor, counts: Tensor, is_mask: bool) -> int:
    """Entries of a table with one for each component and the background; on a GPU for as many as there can be."""
    if counts.device.type == "cpu":
        return int(counts.max()) + 1 if len(counts) else 1
    pixels = values[0].numel() if len(values) else 0
    return 1 + ((pixels + 1) // 2 if is_mask else pixels)


def _place_in_group(sorted_values: Tensor) -> Tensor:
    """Number the entries of each stretch of equal values 0, 1, ..."""
    place = torch.arange(sorted_values.shape[1], device=sorted_values.device).expand_as(sorted_values)
    opens = torch.ones_like(sorted_values, dtype=torch.bool)
    opens[:, 1:] = sorted_values[:, 1:] != sorted_values[:, :-1]
    return place - torch.where(opens, place, 0).cummax(dim=1).values


def _kept(mask: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    mask, kept = mask.as_subclass(Tensor), lookup(keep, labels).view(mask.shape)
    return kept & mask if mask.dtype == torch.bool else torch.where(kept, mask, mask.new_zeros(()))
