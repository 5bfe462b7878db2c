# SPDX-License-Identifier: Apache-2.0
"""The loader of labeled and unlabeled streams: one batch of each a step, exact across workers and restarts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor, list_data_collate
from torch.utils.data import DataLoader

from fewlabel.data.dataset import CachedDataset
from fewlabel.data.leaks import worker_guard
from fewlabel.data.randomness import one_thread, seeded
from fewlabel.data.ranks import rank_and_world
from fewlabel.data.streams import Draw, Streams
from fewlabel.errors import ConfigError, DataError

Batch = dict[str, Any]

_UNLABELED = 2  # numbers of the streams: labeled 0 and 1, unlabeled 2


class StreamLoader:
    """Yield ``{"labeled": [batch, ...], "unlabeled": batch}`` for a fixed number of steps an epoch.

    Which item comes when, and every random number in its transforms, follow from (seed, epoch, step, stream, place)
    alone. So nothing need be stored to resume, and 0 workers give the same batches as 2, bit for bit. One PyTorch
    loader makes all streams of a step in one task.

    Args:
        dataset: labeled items; items are dictionaries, or lists of them from transforms that crop several.
        unlabeled: unlabeled items; None leaves ``"unlabeled"`` out.
        batch_size: items of each stream, in each process.
        epoch_length: steps an epoch.
        seed: root of all randomness, 0 or more.
        num_workers: worker processes. They are started anew in every epoch and share the cache of a
            :class:`CachedDataset` where the system can fork.
        labeled_streams: ``"single"``: one batch from all labeled items. ``"halves"``: two batches, from the items of
            even and of odd index, which are disjoint and grow by appending when the budget grows. ``"independent"``:
            two batches, each from all labeled items in an order of its own.
        keys: what goes into a labeled batch.
        unlabeled_keys: what goes into the unlabeled batch; no label, whatever the items hold.
        pin_memory: page-lock batches, for faster copies to a CUDA device.

    Raises:
        ConfigError: when a data set is too small for its streams.
        ValueError: on impossible sizes or an unknown ``labeled_streams``.

    Note:
        Iterating leaves the global random generators as they were. Under ``torch.distributed`` every process gets
        places of its own in the same global order.
    """

    def __init__(
        self,
        dataset: Any,
        unlabeled: Any = None,
        batch_size: int = 4,
        epoch_length: int = 50,
        seed: int = 0,
        num_workers: int = 0,
        labeled_streams: str = "single",
        keys: Sequence[str] = ("image", "label"),
        unlabeled_keys: Sequence[str] = ("image",),
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1 or epoch_length < 1 or seed < 0 or num_workers < 0:
            raise ValueError(
                f"expected batch_size, epoch_length >= 1 and seed, num_workers >= 0, got {batch_size}, {epoch_length}, "
                f"{seed}, {num_workers}"
            )
        self.dataset = dataset
        self.unlabeled = unlabeled
        self.batch_size = batch_size
        self.epoch_length = epoch_length
        self.seed = seed
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.epoch = 1
        self._streams = _indices(len(dataset), labeled_streams)
        self._keys = dict.fromkeys(self._streams, tuple(keys))
        if unlabeled is not None:
            if not len(unlabeled):
                raise ConfigError("there are no unlabeled images: lower label_budget or add images to the datalist")
            self._streams[_UNLABELED] = range(len(unlabeled))
            self._keys[_UNLABELED] = tuple(unlabeled_keys)

    def __len__(self) -> int:
        return self.epoch_length

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is.

        Args:
            epoch: counted from 1, as ignite does.

        Raises:
            ValueError: below 1.
        """
        if epoch < 1:
            raise ValueError(f"expected an epoch counted from 1, got {epoch}")
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        rank, world = rank_and_world()
        draws = Streams(self._streams, self.batch_size, self.epoch_length, self.seed, self.epoch, rank, world)
        if self.num_workers and multiprocessing.get_start_method() == "fork":
            with one_thread():
                self._fill()
        loader: DataLoader[Any] = DataLoader(
            _Items(self.dataset, self.unlabeled),  # type: ignore[arg-type]
            batch_sampler=draws,
            num_workers=self.num_workers,
            collate_fn=_Collate(self._keys),
            pin_memory=self.pin_memory,
            worker_init_fn=worker_guard(),
            generator=torch.Generator(),  # so that starting workers draws nothing from the global generator
        )
        for batch in loader:
            if isinstance(batch, _Refusal):
                raise DataError(batch.problems) if batch.problems else ConfigError(batch.message)
            yield batch

    def _fill(self) -> None:
        """Fill the caches in the main process, from which forked workers inherit them."""
        for dataset in (self.dataset, self.unlabeled):
            if isinstance(dataset, CachedDataset):
                dataset.fill(progress=rank_and_world()[0] == 0)


def _indices(count: int, labeled_streams: str) -> dict[int, Sequence[int]]:
    """Return the indices of each labeled stream by its number."""
    everything: Sequence[int] = range(count)
    if not count:
        raise ConfigError("there are no labeled items: check label_budget and the datalist")
    if labeled_streams == "single":
        return {0: everything}
    if labeled_streams == "independent":
        return {0: everything, 1: everything}
    if labeled_streams != "halves":
        raise ValueError(f"expected labeled_streams single, halves or independent, got {labeled_streams!r}")
    if count < 2:
        raise ConfigError(
            "1 labeled item cannot be halved for two networks: raise label_budget to 2 or more, or set "
            "method_enabled to false"
        )
    return {0: everything[0::2], 1: everything[1::2]}


class _Items:
    """The data sets of all streams behind one index, with the randomness of each item fixed by its draw."""

    def __init__(self, labeled: Any, unlabeled: Any) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def __getitem__(self, draw: Draw) -> tuple[int, Any]:
        dataset = self.unlabeled if draw.stream == _UNLABELED else self.labeled
        with seeded(draw.seed), one_thread():
            transform: Any = getattr(dataset, "transform", None)
            if hasattr(transform, "set_random_state"):
                transform.set_random_state(seed=draw.seed)
            try:
                return draw.stream, dataset[draw.item]
            except ConfigError as error:
                return draw.stream, _Refusal(error.message, tuple(getattr(error, "problems", ())))


class _Refusal(NamedTuple):
    """A sentence for the user on its way to the main process: raised in a worker, it would only end the worker."""

    message: str
    problems: tuple[str, ...]


class _Collate:
    """Stack the items of each stream; only the wanted keys, as plain tensors (metadata would cost more than pixels)."""

    def __init__(self, keys: Mapping[int, tuple[str, ...]]) -> None:
        self.keys = keys

    def __call__(self, items: Sequence[tuple[int, Any]]) -> Batch | _Refusal:
        for _, item in items:
            if isinstance(item, _Refusal):
                return item
        streams: dict[int, list[Any]] = {number: [] for number in self.keys}
        for number, item in items:
            streams[number].extend(item if isinstance(item, list) else [item])
        with one_thread():  # copies this small are slower with several
            batches = {n: list_data_collate([_plain(i, self.keys[n]) for i in group]) for n, group in streams.items()}
        batch: Batch = {"labeled": [batches[number] for number in batches if number != _UNLABELED]}
        if _UNLABELED in batches:
            batch["unlabeled"] = batches[_UNLABELED]
        return batch


def _plain(item: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    if missing := [key for key in keys if key not in item]:
        raise KeyError(f"expected the keys {list(keys)} from the transforms, got {sorted(item)}: {missing} missing")
    return {key: item[key].as_tensor() if isinstance(item[key], MetaTensor) else item[key] for key in keys}
