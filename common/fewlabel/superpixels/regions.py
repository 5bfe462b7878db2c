# SPDX-License-Identifier: Apache-2.0
"""Region maps of pictures and volumes: superpixels or their controls, sizes in millimeters, inside of the body."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewlabel.kernels import felzenszwalb as kernel
from fewlabel.kernels.components import relabel
from fewlabel.superpixels import store
from fewlabel.superpixels.body import HOLES, body_mask, slices
from fewlabel.superpixels.controls import grid_regions, random_regions

__all__ = ["KINDS", "RegionMap", "region_map"]

KINDS = ("felzenszwalb", "grid", "random")
_OWN = ("image", "slice_axis", "spacing_mm")  # arguments of body_mask that are not settings of the body
_VERSION = 1  # of the maps; to be raised with every change that may change one


def region_map(
    image: Tensor,
    kind: str = "felzenszwalb",
    *,
    spacing_mm: Sequence[float] | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> Tensor:
    """Divide the body in an image into regions; from disk when the same was asked before.

    Args:
        image: see :class:`RegionMap`, as for all else.
        kind: ``felzenszwalb``, ``grid`` or ``random``.
        spacing_mm: distance of neighbors along each axis.
        folder: where maps are kept.
        **settings: the others of :class:`RegionMap`.

    Returns:
        The labels; see :meth:`RegionMap.__call__`.

    Example:
        >>> import tempfile
        >>> image = torch.zeros(1, 4, 6)
        >>> image[..., 1:3], image[..., 3:] = 100, 200
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings = {"window": (0, 200), "sigma_mm": 0, "min_size_mm2": 4, "body": {"threshold": 50}}
        ...     region_map(image, folder=folder, **settings)[0, 0].tolist()
        [-1, 0, 0, 1, 1, 1]
    """
    return RegionMap(kind, folder=folder, **settings)(image, spacing_mm)


@dataclass(frozen=True)
class RegionMap:
    """What regions are wanted: call it with an image to get them.

    Superpixels are found in the whole image, then cut to the body. The controls divide the body into about as many
    regions, which know nothing of the image.

    Args:
        kind: ``felzenszwalb``: superpixels, see :func:`fewlabel.kernels.felzenszwalb.felzenszwalb`; ``grid``: squares
            or cubes; ``random``: Voronoi cells of random pixels.
        dims: 3: regions of a volume; 2: regions in each slice of it, all slices in one call. None: as the image.
        slice_axis: which axis of space counts the slices.
        window: lowest and highest intensity, mapped to 0 and 1 before the segmentation; None takes intensities as
            they are. ``scale`` is in that unit.
        scale: of the algorithm; larger gives larger regions. The algorithm compares it with counts of pixels, so it
            is no size in millimeters; at small scales ``min_size_mm2`` or ``min_size_mm3`` decides alone.
        sigma_mm: standard deviation of the blur before the segmentation.
        min_size_mm2: smallest superpixel where ``dims`` is 2, rounded to whole pixels.
        min_size_mm3: smallest superpixel where ``dims`` is 3.
        count: of the controls: how many regions, in each slice where ``dims`` is 2; None for as many as there are
            superpixels with the same settings.
        body: ``threshold``, in the image's own unit, and whatever else :func:`fewlabel.superpixels.body_mask` takes
            besides spacing and axis; None for the whole image.
        seed: of the random points, which depend on the image, too.
        folder: where maps are kept, one file each; see :func:`fewlabel.superpixels.felzenszwalb`.

    Raises:
        ValueError: a setting is out of range.
    """

    kind: str = "felzenszwalb"
    dims: int | None = None
    slice_axis: int = -1
    window: Sequence[float] | None = None
    scale: float = 1.0
    sigma_mm: float = 1.0
    min_size_mm2: float = 200.0
    min_size_mm3: float = 1000.0
    count: int | None = None
    body: Mapping[str, Any] | None = None
    seed: int = 0
    folder: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.dims not in (None, 2, 3):
            raise ValueError(f"dims must be 2, 3 or None, got {self.dims!r}")
        if self.window is not None and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise ValueError(f"window must be a lower and a higher intensity, got {self.window}")
        if min(self.min_size_mm2, self.min_size_mm3, self.sigma_mm, self.count or 0) < 0:
            raise ValueError(f"sizes and counts must not be negative, got {self}")
        if self.body is not None:
            _check_body(self.body)

    def __call__(self, image: Tensor, spacing_mm: Sequence[float] | None = None) -> Tensor:
        """Return the region of each pixel.

        Args:
            image: (C, H, W) or (C, D, H, W), real and finite.
            spacing_mm: distance of neighbors along each axis of space; None for 1 mm, so that sizes count pixels.

        Returns:
            (1, H, W) or (1, D, H, W), int32, on the image's device: 0, 1, ... for the regions in raster order, slice
            by slice where ``dims`` is 2 (no region lies in two slices); -1 outside of the body.

        Raises:
            ValueError: image and settings do not fit; an intensity is NaN or infinite.
            TypeError: the image is complex.

        Note:
            Work is done on the CPU. For time and memory see the kernel; the rest costs less.
        """
        image = image.as_subclass(Tensor)
        spacing = self._spacing(image, spacing_mm)
        path = self.file(image, spacing_mm)
        found = store.read(path, (1, *image.shape[1:]))
        if found is None:
            found = store.narrow(self._numbered(image.detach().cpu(), spacing, path.stem).numpy())
            store.write(path, found)
        return torch.from_numpy(found.astype(np.int32) - 1).to(image.device)

    def file(self, image: Tensor, spacing_mm: Sequence[float] | None = None) -> Path:
        """Return the file that keeps the map of an image, whether or not it exists yet.

        Args:
            image: see :meth:`__call__`.
            spacing_mm: see :meth:`__call__`.
        """
        facts = {**asdict(self), "dims": self._dims(image), "spacing_mm": self._spacing(image, spacing_mm)}
        del facts["folder"]
        return store.file_of(image.as_subclass(Tensor), [_VERSION, kernel.VERSION, _plain(facts)], self.folder)

    def _dims(self, image: Tensor) -> int:
        space = image.ndim - 1
        if space not in (2, 3) or 0 in image.shape or (self.dims or space) > space:
            wanted = f"a volume (C, D, H, W) for dims = {self.dims}" if self.dims == 3 else "(C, H, W) or (C, D, H, W)"
            raise ValueError(f"expected {wanted}, not empty, got {tuple(image.shape)}")
        return self.dims or space

    def _spacing(self, image: Tensor, spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
        space = image.ndim - 1
        spacing = (1.0,) * space if spacing_mm is None else tuple(map(float, spacing_mm))
        if len(spacing) != space or not all(s > 0 and math.isfinite(s) for s in spacing):
            raise ValueError(f"spacing_mm must be {space} finite numbers > 0, got {spacing_mm}")
        return spacing

    def _numbered(self, image: Tensor, spacing: tuple[float, ...], key: str) -> Tensor:
        """Regions from 1, 0 for none: (1, *space), int32."""
        mask = torch.ones_like(image[:1], dtype=torch.bool)
        if self.body is not None:
            mask = body_mask(image, slice_axis=self.slice_axis, spacing_mm=spacing, **self.body)
        sliced = self._dims(image) < image.ndim - 1
        flat = tuple(s for axis, s in enumerate(spacing) if not sliced or axis != self.slice_axis % 3)
        masks = slices(mask[0], self.slice_axis) if sliced else mask
        if self.kind == "felzenszwalb":
            batch = torch.stack([slices(c, self.slice_axis) for c in image], 1) if sliced else image.unsqueeze(0)
            labels = torch.where(masks, self._superpixels(batch, flat), 0)
        else:
            counts = [self.count] * len(masks) if self.count is not None else self._counts(image, spacing, sliced)
            labels = self._controls(masks, counts, flat, key)
        labels, found = relabel(labels, len(flat))
        before = (found.cumsum(0, dtype=torch.int32) - found).view(-1, *[1] * len(flat))
        labels = torch.where(labels > 0, labels + before, 0)
        return labels.movedim(0, self.slice_axis).unsqueeze(0).contiguous() if sliced else labels

    def _superpixels(self, batch: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """Superpixels of (B, C, *space) from 1."""
        if self.window is not None:
            low, high = self.window
            batch = batch.double().sub_(low).div_(high - low).clamp_(0, 1)
        smallest = (self.min_size_mm2 if len(spacing) == 2 else self.min_size_mm3) / math.prod(spacing)
        sigma = self.sigma_mm / min(spacing)
        return kernel.felzenszwalb(batch, self.scale, sigma, max(1, round(smallest)), spacing).int() + 1

    def _counts(self, image: Tensor, spacing: tuple[float, ...], sliced: bool) -> list[int]:
        """How many superpixels there are in the image, or in each of its slices."""
        labels = replace(self, kind="felzenszwalb")(image, spacing) + 1
        labels = slices(labels[0], self.slice_axis) if sliced else labels
        return [int(n) for n in relabel(labels, labels.ndim - 1)[1]]

    def _controls(self, masks: Tensor, counts: list[int], spacing: tuple[float, ...], key: str) -> Tensor:
        """Cells from 1 in each image of the masks (B, *space)."""
        pairs = list(zip(masks, counts, strict=True))
        if self.kind == "grid":
            return torch.stack([grid_regions(mask, count, spacing) for mask, count in pairs])
        generator = torch.Generator().manual_seed(int(key[:15], 16))  # the key depends on image and seed
        return torch.stack([random_regions(mask, count, spacing, generator) for mask, count in pairs])


def _check_body(body: Any) -> None:
    takes = [name for name in inspect.signature(body_mask).parameters if name not in _OWN]
    if not isinstance(body, Mapping) or not isinstance(body.get("threshold"), Real) or set(body) - set(takes):
        others = ", ".join(takes[1:])
        raise ValueError(f"body must be a dictionary with a threshold, a number, and at will {others}; got {body!r}")
    if body.get("holes", HOLES[0]) not in HOLES or body.get("components", 1) < 1:
        raise ValueError(f"holes must be one of {', '.join(HOLES)}, and components at least 1, got {dict(body)}")


def _plain(value: Any) -> Any:
    """Settings for a digest in which 1 and 1.0, a list and a tuple are the same."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
