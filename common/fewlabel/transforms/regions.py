# SPDX-License-Identifier: Apache-2.0
"""Put the regions of an image into its item."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import Transform

from fewlabel.superpixels import RegionMap
from fewlabel.transforms._meta import like, plain, refusal


class AddRegionsd(Transform):
    """Add the region map of an image, from disk where it was made before.

    It stands where image and grid are what the network will see, before anything random; sizes in millimeters are
    converted by the spacing in the image's affine. Where a file states none (a PNG, say) MONAI takes 1 mm, and sizes
    count pixels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     add = AddRegionsd(kind="grid", count=4, folder=folder)
        ...     add({"image": torch.rand(1, 2, 8)})["regions"].tolist()
        [[[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3, 3]]]
    """

    def __init__(
        self,
        image_key: str = "image",
        regions_key: str = "regions",
        kind: str = "felzenszwalb",
        folder: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Choose the regions.

        Args:
            image_key: key of the image, (C, H, W) or (C, D, H, W).
            regions_key: key that the map gets.
            kind: ``felzenszwalb``, ``grid`` or ``random``.
            folder: where maps are kept.
            **settings: the others of :class:`fewlabel.superpixels.RegionMap`.

        Raises:
            TypeError: a setting has an unknown name.
            ValueError: a setting is out of range.
        """
        self.image_key, self.regions_key = image_key, regions_key
        self.regions = RegionMap(kind, folder=folder or None, **settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the map, (1, *space) int32, -1 for no region, in the image's container.

        Args:
            data: the item.

        Raises:
            DataError: the image holds NaN or infinity; names the file.
        """
        img = data[self.image_key]
        return {**data, self.regions_key: like(self.regions(_finite(img), spacing_of(img)), img)}

    def file(self, data: Mapping[Hashable, Any]) -> Path:
        """Return the file that keeps the map of an item, whether or not it exists yet.

        Args:
            data: the item.
        """
        img = data[self.image_key]
        return self.regions.file(plain(img), spacing_of(img))


def spacing_of(img: NdarrayOrTensor) -> list[float] | None:
    """Return the distance of neighbors along each axis of space, in the unit of the affine; None without an affine.

    Args:
        img: (C, *space).
    """
    return [float(s) for s in img.pixdim][: img.ndim - 1] if isinstance(img, MetaTensor) else None


def _finite(img: NdarrayOrTensor) -> torch.Tensor:
    values = plain(img)
    if values.is_floating_point() and not bool(values.isfinite().all()):
        raise refusal(img, "holds NaN or infinite intensities, for which there are no regions: repair the file.")
    return values
