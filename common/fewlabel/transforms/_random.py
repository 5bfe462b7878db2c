# SPDX-License-Identifier: Apache-2.0
"""One draw for all keys of an item: the dictionary form of a random array transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Self

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable


class SharedDrawd(Randomizable, MapTransform):
    """Apply one random array transform to several keys with the same draw.

    The array transform takes ``randomize=False`` in its call to repeat the last draw. The random state is the array
    transform's own, so that ``set_random_state`` on this or on a ``Compose`` around it fixes every outcome.
    """

    def __init__(self, keys: KeysCollection, transform: Any, allow_missing_keys: bool = False) -> None:
        """Wrap an array transform.

        Args:
            keys: keys of the items to be transformed.
            transform: a MONAI ``Randomizable`` with ``randomize()`` and ``__call__(img, randomize)``.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Seed the array transform.

        Args:
            seed: the seed; None and no state takes one from the operating system.
            state: a random state to be used instead.

        Returns:
            This transform.
        """
        self.transform.set_random_state(seed, state)
        super().set_random_state(state=self.transform.R)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw once."""
        self.transform.randomize(None)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with every key transformed by one draw."""
        out = dict(data)
        self.randomize()
        for key in self.key_iterator(out):
            out[key] = self.transform(out[key], randomize=False)
        return out
