# SPDX-License-Identifier: Apache-2.0
"""Which pixels belong to which region: a label map turned into compressed rows, once, for all that follows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RegionIndex", "region_index", "stack_indices"]

_FIELDS = ("ids", "perm", "offsets", "labels")


@dataclass(frozen=True, eq=False)
class RegionIndex:
    """The regions of a batch of label maps, L to an image; S is the number of pixels of an image.

    Regions are numbered 0 to L - 1 within their image, so that the pair (image, region) is unique in the batch and
    whatever is computed per region is a plain (B, L, ...) tensor. An image with fewer regions has empty ones at the
    end. Made by :func:`region_index`; the operators trust it.

    Attributes:
        ids: (B, *spatial), int32: the region of each pixel, -1 where it is ignored.
        perm: (B, S), int32: the pixels of an image (raster positions, 0 to S - 1), region after region, in raster
            order within a region; the ignored ones last.
        offsets: (B, L + 1), int32: the pixels of region r are ``perm[offsets[r] : offsets[r + 1]]``.
        labels: (B, L), int64: the label that a region had in the label map, -1 for padding.
    """

    ids: Tensor
    perm: Tensor
    offsets: Tensor
    labels: Tensor

    @functools.cached_property
    def counts(self) -> Tensor:
        """(B, L), int32: pixels of each region; 0 for an empty one."""
        return self.offsets.diff(dim=1)

    @functools.cached_property
    def sizes(self) -> Tensor:
        """(B, L, 1), int32: what to divide a sum by for a mean; the counts, but 1 for an empty region."""
        return self.counts.clamp(min=1).unsqueeze(-1)

    @property
    def regions(self) -> int:
        """L, the number of regions of an image, empty ones included."""
        return self.labels.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.ids.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RegionIndex:
        """Return the same index on a device.

        Args:
            device: where to.
            non_blocking: see :meth:`torch.Tensor.to`.
        """
        return RegionIndex(*(t.to(device, non_blocking=non_blocking) for t in self.tensors().values()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, to be stored beside the label map; :meth:`from_tensors` reads them."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> RegionIndex:
        """Return the index that :meth:`tensors` described.

        Args:
            tensors: by name, on one device.

        Raises:
            ValueError: names, types, shapes or values are not those of an index. Values are read back for it.
        """
        if set(tensors) != set(_FIELDS):
            raise ValueError(f"expected the tensors {', '.join(_FIELDS)}, got {', '.join(sorted(tensors))}")
        index = cls(**{name: tensors[name] for name in _FIELDS})
        if not (index._has_shape() and index._has_range()):
            shapes = ", ".join(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}" for name in _FIELDS)
            raise ValueError(f"these tensors are not an index of regions: {shapes}")
        return index

    def _has_shape(self) -> bool:
        batch, pixels = self.ids.shape[0], self.ids[:1].numel()
        dtypes = [t.dtype for t in self.tensors().values()] == [torch.int32] * 3 + [torch.int64]
        shapes = [(batch, pixels), (batch, self.regions + 1), (batch, self.regions)]
        return dtypes and [tuple(t.shape) for t in (self.perm, self.offsets, self.labels)] == shapes

    def _has_range(self) -> bool:
        """Tell whether every entry points inside of what it points to."""
        regions, pixels = self.regions, self.perm.shape[1]
        limits = [(self.ids, -1, regions - 1), (self.perm, 0, pixels - 1), (self.offsets, 0, pixels)]
        inside = [((t >= low) & (t <= high)).all() for t, low, high in limits]
        return bool(torch.stack([*inside, (self.counts >= 0).all()]).all())


def region_index(labels: Tensor, *, spatial_dims: int = 2, num_labels: int | None = None) -> RegionIndex:
    """Index the regions of label maps.

    Without ``num_labels``, the labels that occur in an image become its regions in ascending order: they may be large
    and have gaps, and no region is empty but for padding. Finding them reads back one number from a GPU. With
    ``num_labels``, label l *is* region l in every image, present or not: two views of one image then agree on their
    regions, and nothing is read back.

    Args:
        labels: (B, *spatial) integers, or (*spatial) for a batch of one; negative pixels belong to no region.
        spatial_dims: number of spatial axes.
        num_labels: more than the largest label.

    Returns:
        The index, on the device of the labels.

    Raises:
        TypeError: labels are not integers.
        ValueError: the number of axes does not fit, an image has 2^31 pixels or more, or (on a CPU; elsewhere such
            pixels are ignored) a label reaches ``num_labels``.

    Note:
        A counting sort on a CPU, O(B S); a stable radix sort on a GPU. Takes 8 bytes per pixel and 12 per region.

    Example:
        >>> index = region_index(torch.tensor([[7, 7, -1], [70000, 7, 7]]))
        >>> index.ids.tolist(), index.labels.tolist(), index.counts.tolist()
        ([[[0, 0, -1], [1, 0, 0]]], [[7, 70000]], [[4, 1]])
        >>> index.perm.tolist()
        [[0, 1, 4, 5, 3, 2]]
    """
    labels = _batched(labels, spatial_dims)
    flat = labels.flatten(1)
    ids, names = _occurring(flat) if num_labels is None else _given(flat, num_labels)
    perm, offsets = _rows(ids, names.shape[1])
    return RegionIndex(ids.view(labels.shape), perm, offsets, names)


def stack_indices(indices: Sequence[RegionIndex]) -> RegionIndex:
    """Return the index of a batch from those of its parts, in order; padded to the largest number of regions.

    Args:
        indices: at least one, of one image size, on one device.

    Raises:
        ValueError: there is none, or the image sizes differ.
    """
    sizes = {tuple(index.ids.shape[1:]) for index in indices}
    if len(sizes) != 1:
        raise ValueError(f"expected indices of one image size, got {sorted(sizes)}")
    most = max(index.regions for index in indices)
    offsets = [torch.cat([i.offsets, i.offsets[:, -1:].expand(-1, most - i.regions)], 1) for i in indices]
    labels = [torch.nn.functional.pad(index.labels, (0, most - index.regions), value=-1) for index in indices]
    ids, perm = (torch.cat([getattr(index, name) for index in indices]) for name in ("ids", "perm"))
    return RegionIndex(ids, perm, torch.cat(offsets), torch.cat(labels))


def _batched(labels: Tensor, spatial_dims: int) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim not in (spatial_dims, spatial_dims + 1):
        expected = f"{spatial_dims} axes, or {spatial_dims + 1} with a batch"
        raise ValueError(f"expected labels of {expected} (spatial_dims={spatial_dims}), got {tuple(labels.shape)}")
    labels = labels.unsqueeze(0) if labels.ndim == spatial_dims else labels
    if labels[:1].numel() >= 2**31:
        raise ValueError(f"an image must have fewer than 2^31 pixels, got {tuple(labels.shape)}")
    return labels


def _given(flat: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Label l is region l: (B, S) ids in int32 and (B, L) labels."""
    if not 0 <= num_labels < 2**31:
        raise ValueError(f"num_labels must be 0 to 2^31 - 1, got {num_labels}")
    wide = flat if flat.dtype == torch.int32 else flat.long()
    if flat.device.type == "cpu" and flat.numel() and int(wide.max()) >= num_labels:
        raise ValueError(f"labels must be below num_labels = {num_labels}, got {int(wide.max())}")
    ids = torch.where((wide >= 0) & (wide < num_labels), wide, -1).int()
    names = torch.arange(num_labels, device=flat.device).expand(flat.shape[0], -1)
    return ids, names.contiguous()


def _occurring(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The labels that occur in an image are its regions: (B, S) ids in int32 and (B, L) labels."""
    flat, values = flat.long(), None
    size = max(int(flat.max()) + 1, 0) if flat.numel() else 0
    if size > flat.numel():  # a table of all labels would be larger than the image
        values, inverse = torch.unique(flat, return_inverse=True)
        flat, size = torch.where(flat >= 0, inverse, -1), len(values)
    slots = torch.where(flat >= 0, flat, size)
    occurs = flat.new_zeros(len(flat), size + 1, dtype=torch.bool).scatter_(1, slots, True)
    occurs[:, size] = False
    number = occurs.cumsum(1, dtype=torch.int32) - 1
    ids = torch.where(flat >= 0, number.gather(1, slots), -1)
    image, label = occurs.nonzero(as_tuple=True)
    names = flat.new_full((len(flat), int(occurs.sum(1).max()) if len(flat) else 0), -1)
    names[image, number[image, label].long()] = label if values is None else values[label]
    return ids, names


def _rows(ids: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sort the pixels of each image by region, stable, ignored ones last; return permutation and row offsets."""
    if ids.device.type == "cpu":
        from fewlabel.kernels.regions import cpu

        return cpu.sort_pixels(ids, regions)
    keys, perm = torch.where(ids < 0, regions, ids).sort(dim=1, stable=True)
    starts = torch.arange(regions + 1, dtype=torch.int32, device=ids.device).expand(len(ids), -1).contiguous()
    return perm.int(), torch.searchsorted(keys, starts).int()
