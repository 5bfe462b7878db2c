# SPDX-License-Identifier: Apache-2.0
"""Labels of some classes only, and flips that swap the labels of left and right."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform

from fewlabel.errors import ConfigError
from fewlabel.transforms._meta import like, plain, refusal
from fewlabel.transforms.labels import parse_label_map

PRESENT_KEY = "labels_present"


class LabelsPresentd(MapTransform):
    """Replace the list ``labels_present`` of an item by one truth value a class, so that a loader can stack items.

    The vector, (K,) bool, stays under ``labels_present``: whether the label tells the class from others. Background
    always counts as told, and an item without the list tells every class.

    Example:
        >>> item = {"label": torch.tensor([[[0, 1]]]), "labels_present": [1, 3]}
        >>> LabelsPresentd(keys="label", classes=4)(item)["labels_present"].tolist()
        [True, True, False, True]
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: int,
        label_map: Mapping[Any, Any] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        """Choose the classes.

        Args:
            keys: keys of the labels, which are compared with the list: (1, *space), already mapped to classes.
            classes: K, background included.
            label_map: file value to class, as of :class:`MapLabelsd`: the list names values of files, and a class is
                told when all of its values are. None when values are classes.
            allow_missing_keys: accept an item without label instead of raising.

        Raises:
            ConfigError: ``label_map`` is no map of integers, or names a class that is not there.
        """
        super().__init__(keys, allow_missing_keys)
        self.classes = classes
        self.class_of = {c: c for c in range(classes)} if label_map is None else parse_label_map(label_map)
        if (highest := max(self.class_of.values())) >= classes:
            raise ConfigError(f"label_map names class {highest}, but there are {classes} classes, counted from 0")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the vector.

        Args:
            data: the item.

        Raises:
            DataError: a list with other than known labels, or a label with a class that the list lacks; names the file.
        """
        out = dict(data)
        labels = [out[key] for key in self.key_iterator(out)]
        listed = out.get(PRESENT_KEY)
        present = torch.ones(self.classes, dtype=torch.bool)
        if listed is not None:
            known = sorted(self.class_of.keys() - {0})
            if not isinstance(listed, (list, tuple)) or not listed or not all(value in known for value in listed):
                source = labels[0] if labels else None
                raise refusal(source, f"has labels_present {listed}: expected one or more of {known}")
            present[[c for value, c in self.class_of.items() if c and value not in listed]] = False
        if not present.all():
            for label in labels:
                self._compare(label, present)
        out[PRESENT_KEY] = present
        return out

    def _compare(self, label: NdarrayOrTensor, present: torch.Tensor) -> None:
        """Refuse a label with a class that is said to be absent."""
        known = torch.cat([present, torch.tensor([False])])  # the last place stands for everything that is no class
        classes = plain(label).long()
        classes = torch.where((classes < 0) | (classes >= self.classes), self.classes, classes)
        if not known[classes].all():
            found = sorted(set(plain(label)[~known[classes]].unique().tolist()))
            words = ", ".join(f"{value:g}" for value in found)
            raise refusal(label, f"holds class {words}, which its labels_present lacks: correct the datalist")


class RandFlipPairsd(RandomizableTransform, MapTransform):
    """Mirror a patient left to right and swap the labels that have a side, by chance.

    A mirrored left kidney looks like a right one and shall be called so; without the swap, a flip teaches that sides
    do not matter. So without pairs this does nothing, whatever the probability: say ``[]`` where classes have sides
    that are unknown. ``labels_present`` of :class:`LabelsPresentd` is swapped along.

    Note:
        The grid stays, and with it the affine: it is another patient in the same scanner, not the same one seen from
        the other side, and whatever reads the affine later does not turn it back. Not recorded for ``Invertd``.

    Example:
        >>> flip = RandFlipPairsd(["image", "label"], pairs=[[1, 2]], prob=1.0)
        >>> flip({"image": torch.tensor([[7, 8, 9]]), "label": torch.tensor([[1, 0, 2]])})["label"].tolist()
        [[1, 0, 2]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str = "label",
        pairs: Sequence[Sequence[int]] = (),
        axis: int = 0,
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        """Choose what is mirrored.

        Args:
            keys: everything on the grid, (C, *space), label and regions included.
            label_key: which of them holds classes.
            pairs: classes that change places, as ``[[3, 4]]``; empty switches the flip off.
            axis: of space, from 0, that runs between left and right: 0 after ``Orientationd`` to LPS or RAS.
            prob: probability of a flip.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ConfigError: pairs that are no pairs of distinct classes above 0, a class in two pairs, or ``label_key`` not
                in ``keys``.
        """
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        flat = [value for pair in pairs for value in pair]
        if any(len(pair) != 2 for pair in pairs) or not all(type(v) is int and v > 0 for v in flat):
            raise ConfigError(f"flip_label_pairs {pairs} are no pairs of classes, such as [[3, 4]]")
        if len(set(flat)) != len(flat):
            raise ConfigError(f"flip_label_pairs {pairs} name a class twice")
        if label_key not in self.keys:
            raise ConfigError(f"RandFlipPairsd mirrors {', '.join(map(str, self.keys))} but not {label_key!r}: add it")
        self.label_key, self.axis = label_key, axis
        self.other = {a: b for pair in pairs for a, b in (pair, tuple(reversed(pair)))}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data``, mirrored or as it is.

        Args:
            data: the item.

        Raises:
            ValueError: no such axis, or ``labels_present`` that is still a list.
        """
        out = dict(data)
        self.randomize(None)
        if not self._do_transform or not self.other:
            return out
        for key in self.key_iterator(out):
            values = plain(out[key])
            if not 0 <= self.axis < values.ndim - 1:
                raise ValueError(f"{key}: expected an axis of space, 0 to {values.ndim - 2}, got {self.axis}")
            if key == self.label_key:
                values = self._swapped(values)
            out[key] = like(values.flip(self.axis + 1), out[key])
        if PRESENT_KEY in out:
            out[PRESENT_KEY] = self._swapped_presence(out[PRESENT_KEY])
        return out

    def _swapped(self, label: torch.Tensor) -> torch.Tensor:
        out = label.clone()
        for value, other in self.other.items():
            out[label == value] = other
        return out

    def _swapped_presence(self, present: Any) -> torch.Tensor:
        if not isinstance(present, torch.Tensor):
            raise ValueError(f"expected labels_present as a vector, got {present}: put LabelsPresentd before the flip")
        return present[[self.other.get(c, c) for c in range(len(present))]]
