# SPDX-License-Identifier: Apache-2.0
"""Two random views of one image, with its regions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Compose, Randomizable, RandZoomd, Resized, Zoomd
from monai.utils import ensure_tuple, ensure_tuple_rep

from fewlabel.errors import ConfigError
from fewlabel.transforms._meta import like, plain

_Transform = Callable[[Mapping[Hashable, Any]], Any]


class TwoViewsd(Randomizable):
    """Make two views of an image: geometry moves image and regions alike, photometry changes the image only.

    Both lists hold MONAI's dictionary transforms. Each view draws from random states of its own, which follow from
    this transform's, so that ``set_random_state`` on it or on a ``Compose`` around it fixes both.

    Region r of one view is region r of the other. MONAI writes 0 to what comes from outside of an image; regions are
    therefore moved by one before and back afterwards, so that it becomes -1, no region. Labels travel as float32,
    exact below 2^24.

    Example:
        >>> from monai.transforms import RandFlipd, RandScaleIntensityd
        >>> views = TwoViewsd([RandFlipd(["image", "regions"], 0.5)], [RandScaleIntensityd("image", 0.2, prob=1.0)])
        >>> item = views.set_random_state(seed=0)({"image": torch.rand(1, 4, 4), "regions": torch.ones(1, 4, 4).int()})
        >>> sorted(item)
        ['image', 'image_2', 'regions', 'regions_2']
    """

    def __init__(
        self,
        geometric: Sequence[_Transform] = (),
        photometric: Sequence[_Transform] = (),
        image_key: str = "image",
        regions_key: str | None = "regions",
        suffix: str = "_2",
    ) -> None:
        """Store the transforms.

        Args:
            geometric: for the image and the regions; for these with ``mode`` ``nearest`` (``nearest-exact`` of
                transforms that change the size) and ``padding_mode`` ``zeros`` or ``constant``, where they have such.
            photometric: for the image.
            image_key: key of the image.
            regions_key: key of the region map; None where there is none.
            suffix: what the keys of the second view have in addition.

        Raises:
            ConfigError: a geometric transform leaves out the image or the regions, interpolates regions or fills with
                them, or a photometric one changes the regions.
        """
        for transform in geometric:
            _check_geometric(transform, image_key, regions_key)
        for transform in photometric:
            if regions_key in ensure_tuple(getattr(transform, "keys", ())):
                raise ConfigError(f"photometric {_name(transform)} changes {regions_key!r}: take it out of its keys")
        self.geometric, self.photometric = Compose(geometric), Compose(photometric)
        self.image_key, self.regions_key, self.suffix = image_key, regions_key, suffix

    def randomize(self, data: Any = None) -> None:
        """Draw the random states of one view."""
        for transforms in (self.geometric, self.photometric):
            transforms.set_random_state(seed=int(self.R.randint(2**32, dtype="uint32")))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the first view in place of image and regions, and the second beside it.

        Args:
            data: the item; image (C, *space), regions (1, *space) integers, -1 for no region.

        Raises:
            ConfigError: a transform made values that are no regions of the item, or several items of one.
        """
        out = dict(data)
        for suffix in ("", self.suffix):
            for key, value in self._view(data).items():
                out[f"{key}{suffix}"] = value
        return out

    def _view(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        self.randomize()
        item: dict[str, Any] = {self.image_key: _copy(data[self.image_key])}
        if self.regions_key is not None:
            regions = plain(data[self.regions_key])
            item[self.regions_key] = like(regions.float() + 1, data[self.regions_key])
        item = _one(self.geometric(item))
        if self.regions_key is not None:
            item[self.regions_key] = self._restored(item[self.regions_key], regions)
        return _one(self.photometric(item))

    def _restored(self, moved: Any, before: torch.Tensor) -> Any:
        """Regions after the geometric part, in their own numbers again."""
        values = plain(moved)
        labels = values.round().int() - 1
        known = torch.zeros(int(before.max()) + 2, dtype=torch.bool)
        known[0] = True
        known[before.flatten().long() + 1] = True
        inside = (labels >= -1) & (labels < len(known) - 1) & (values == values.round())
        if not bool(inside.all() and known[labels.long() + 1].all()):
            names = ", ".join(map(_name, self.geometric.transforms))
            raise ConfigError(
                f"{names} made values of {self.regions_key!r} that are no regions: set mode nearest there"
            )
        return like(labels, moved)


def _check_geometric(transform: Any, image_key: str, regions_key: str | None) -> None:
    """Refuse what would part the regions from the image."""
    keys = ensure_tuple(getattr(transform, "keys", (image_key, regions_key)))
    for key in (image_key, *([] if regions_key is None else [regions_key])):
        if key not in keys:
            raise ConfigError(f"geometric {_name(transform)} leaves out {key!r}: add it to its keys")
    if regions_key is None:
        return
    # "nearest" of a change of size takes the pixel before, up to a whole pixel off what interpolation does
    resizes = isinstance(transform, (RandZoomd, Resized, Zoomd))
    wanted = {"mode": ("nearest-exact",) if resizes else ("nearest",), "padding_mode": ("zeros", "constant")}
    for option, allowed in wanted.items():
        if hasattr(transform, option) and (words := getattr(transform, option)) is not None:
            word = str(ensure_tuple_rep(words, len(keys))[keys.index(regions_key)])
            if word not in allowed:
                raise ConfigError(
                    f"geometric {_name(transform)} has {option} {word!r} for {regions_key!r}: "
                    f"set {' or '.join(map(repr, allowed))} there"
                )


def _one(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ConfigError("a view must be one item: take transforms that make several samples out of TwoViewsd")
    return item


def _copy(img: Any) -> Any:
    return img.clone() if isinstance(img, torch.Tensor) else img.copy()


def _name(transform: Any) -> str:
    return type(transform).__name__
