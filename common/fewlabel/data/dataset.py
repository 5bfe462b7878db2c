# SPDX-License-Identifier: Apache-2.0
"""A cached data set that reads nothing before it is asked for an item."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

from monai.data import CacheDataset
from monai.transforms import Transform
from monai.transforms.traits import RandomizableTrait
from tqdm.auto import tqdm

from fewlabel.data.memory import free_bytes, item_bytes
from fewlabel.errors import ConfigError


class CachedDataset(CacheDataset):
    """Keep the outcome of all transforms before the first random one, filled at first access.

    Building it costs nothing and reads nothing, so that configs can be checked without their data, and lists that an
    earlier stage writes may still be missing. MONAI's :class:`~monai.data.CacheDataset` reads all items when it is
    built, or keeps a cache per worker and epoch.

    Args:
        data: items; may be replaced from outside, by config, by ``set_data`` or by assignment to ``data``.
        transform: a ``Compose`` or a sequence of transforms.
        cache_rate: share of the items to keep in [0, 1], or ``"auto"``: as many as fit into a quarter of the memory
            that is free at first access, judged by the first item.

    Note:
        Items are copied out of the cache, so that a transform that works in place cannot change it. Worker processes
        that are forked share the cache of the main process if :meth:`fill` ran before, as
        :class:`fewlabel.data.StreamLoader` sees to; else every worker fills its own.

    Raises:
        ConfigError: when ``cache_rate`` is neither.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
        cache_rate: float | str = "auto",
    ) -> None:
        self._rate = _rate(cache_rate)
        self._planned_for: Any = None
        super().__init__(data=data, transform=transform, cache_rate=0.0, progress=False, runtime_cache=True)

    def set_data(self, data: Sequence[Any]) -> None:
        """Replace the items and forget the cache.

        Args:
            data: the new items.
        """
        self.data = data
        self._planned_for = None

    def fill(self, num_threads: int = 0, progress: bool = True) -> None:
        """Fill the cache now, with threads.

        Args:
            num_threads: how many; 0 takes one for each processor, at most 8.
            progress: show a bar when it takes longer than two seconds.
        """
        self._plan()
        missing = [i for i in range(self.cache_num) if self._cache[i] is None]
        if not missing:
            return
        with ThreadPoolExecutor(num_threads or min(8, os.cpu_count() or 1)) as pool:
            loaded = pool.map(self._load_cache_item, missing)
            bar = tqdm(loaded, "caching", len(missing), delay=2, disable=not progress, leave=False)
            for index, item in zip(missing, bar, strict=True):
                self._cache[index] = item

    def _plan(self) -> None:
        """Decide how many items to keep; with "auto" the first is loaded to know its size."""
        if self._planned_for is self.data:
            return
        count = len(self.data)
        first = None
        if self._rate is not None:
            self.cache_num = min(count, round(count * self._rate))
        elif count:
            first = self._load_cache_item(0)
            self.cache_num = min(count, int(free_bytes() / 4 // max(1, item_bytes(first))))
        self._cache = [None] * self.cache_num
        if first is not None and self.cache_num:
            self._cache[0] = first
        self._planned_for = self.data

    def _transform(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        self._plan()
        index %= len(self)
        item = self._cache[index] if index < self.cache_num else None
        if item is None:
            item = self._load_cache_item(index)
            if index < self.cache_num:
                self._cache[index] = item
        item = deepcopy(item) if index < self.cache_num else item
        start = self.transform.get_index_of_first(_is_random)
        return item if start is None else self.transform(item, start=start)


def _is_random(transform: Any) -> bool:
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)


def _rate(cache_rate: float | str) -> float | None:
    if cache_rate == "auto":
        return None
    try:
        rate = float(cache_rate)
    except (TypeError, ValueError):
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f'cache_rate {cache_rate!r} must be a share in [0, 1] or "auto"')
    return rate
