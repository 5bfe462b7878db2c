# SPDX-License-Identifier: Apache-2.0
"""Map the values that a mask file holds to the classes that a network learns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform

from fewlabel.errors import ConfigError
from fewlabel.transforms._meta import drop_trailing_singletons, like, plain, refusal

_TABLE_LIMIT = 1 << 16


def parse_label_map(label_map: Mapping[Any, Any]) -> dict[int, int]:
    """Return a label map with integer keys and values; 0 stays 0 unless the map says otherwise.

    Args:
        label_map: file value to class, for example ``{"1": 1, "2": 1, "255": 1}``; JSON writes keys as strings.

    Returns:
        The same with integers, ``0: 0`` added where 0 was absent.

    Raises:
        ConfigError: a key or value that is no integer, or a class below 0.
    """
    parsed = {0: 0}
    for key, value in label_map.items():
        try:
            source, target = int(str(key)), int(str(value))
        except ValueError:
            raise ConfigError(f"label_map: expected integers, received {key!r}: {value!r}.") from None
        if target < 0:
            raise ConfigError(f"label_map: classes start at 0, received {key!r}: {value!r}.")
        parsed[source] = target
    return parsed


class MapLabels(Transform):
    """Replace the values of a mask by classes, and refuse values that the map does not know.

    Anti-aliased or lossily saved masks are thereby found at once instead of training on invented classes. A grey mask
    that was saved as RGB or RGBA is reduced to one channel.
    """

    def __init__(self, label_map: Mapping[Any, Any]) -> None:
        """Store the map.

        Args:
            label_map: file value to class, see :func:`parse_label_map`.
        """
        self.label_map = parse_label_map(label_map)
        low, high = min(self.label_map), max(self.label_map)
        self._table: torch.Tensor | None = None
        if low >= 0 and high < _TABLE_LIMIT:
            self._table = torch.full((high + 2,), -1.0)  # the last cell stands for everything above the map
            self._table[list(self.label_map)] = torch.tensor([float(v) for v in self.label_map.values()])

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Map one mask.

        Args:
            img: shape ``(C, ., .)`` or ``(C, ., ., .)``, C 1, or 2 to 4 for a grey mask saved in color; any integer
                dtype, bool, or floats that hold integers.

        Returns:
            Float32 classes, ``(1, ., .)`` or ``(1, ., ., .)``, in the container of the input; without axes of one voxel
            at the end.

        Raises:
            DataError: values outside the map, fractions, or a mask in color; names file, values and key.
        """
        img = drop_trailing_singletons(img)
        values = _one_channel(plain(img), img)
        if values.is_floating_point() and not torch.equal(values, values.round()):
            raise refusal(img, "holds fractions, not labels: save the mask with integers, resized by nearest neighbor.")
        index = values.to(torch.int64)
        mapped = self._by_table(index) if self._table is not None else self._by_search(index)
        if bool((mapped < 0).any()):
            self._refuse(index[mapped < 0].unique().tolist(), img)
        return like(mapped, img)

    def _by_table(self, index: torch.Tensor) -> torch.Tensor:
        assert self._table is not None
        last = len(self._table) - 1
        return self._table[torch.where(index < 0, last, index.clamp(max=last))]

    def _by_search(self, index: torch.Tensor) -> torch.Tensor:
        found, where = index.unique(return_inverse=True)
        return torch.tensor([float(self.label_map.get(int(v), -1)) for v in found])[where]

    def _refuse(self, unknown: list[int], img: NdarrayOrTensor) -> None:
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        hint = " (so many values suggest a lossily saved mask or a picture)" if len(unknown) > 8 else ""
        raise refusal(
            img,
            f"holds label {shown}{hint}, which 'label_map' does not name: it has "
            f"{self.label_map}; add the value there or correct the mask.",
        )


def _one_channel(values: torch.Tensor, img: NdarrayOrTensor) -> torch.Tensor:
    if values.ndim not in (3, 4) or values.shape[0] not in (1, 2, 3, 4):
        raise refusal(
            img,
            f"is no mask of a picture or volume: expected one channel first, received shape {tuple(values.shape)}; "
            "check EnsureChannelFirstd in 'preprocessing'.",
        )
    color = values[:3] if values.shape[0] >= 3 else values[:1]
    if color.shape[0] == 3 and not (torch.equal(color[0], color[1]) and torch.equal(color[0], color[2])):
        raise refusal(
            img,
            "is a mask in color (its red, green and blue differ): save it with one channel "
            "of integer labels that 'label_map' names.",
        )
    return color[:1]


class MapLabelsd(MapTransform):
    """Dictionary version of :class:`MapLabels`."""

    def __init__(self, keys: KeysCollection, label_map: Mapping[Any, Any], allow_missing_keys: bool = False) -> None:
        """Choose the keys and the map.

        Args:
            keys: keys of the masks.
            label_map: file value to class, see :func:`parse_label_map`.
            allow_missing_keys: skip keys that an item lacks (unlabeled items have no mask) instead of raising.
        """
        super().__init__(keys, allow_missing_keys)
        self.transform = MapLabels(label_map)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the masks mapped."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.transform(out[key])
        return out
