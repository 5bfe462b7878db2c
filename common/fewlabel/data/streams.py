# SPDX-License-Identifier: Apache-2.0
"""Which item each step takes from each stream: a pure function of (seed, epoch, step), so that nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Draw(NamedTuple):
    """One item to load.

    Args:
        stream: number of the stream.
        item: index in the stream's data set.
        seed: seed of all randomness in this item's transforms, in [0, 2^32).
    """

    stream: int
    item: int
    seed: int


class Streams:
    """The draws of one epoch, a list for each step.

    A stream runs through its indices in a new random order in every pass, whole passes after one another and on across
    epochs: in epoch e, step t, it takes the B W positions from ((e - 1) T + t) B W on, where B is the batch size, W the
    number of processes and T the steps of an epoch. Process r has the B positions from r B on, so that processes never
    share a position, and 2 processes of batch 2 take what 1 of batch 4 takes.

    Args:
        streams: the indices of each stream by its number; an order is drawn from (seed, number, pass).
        batch_size: items of each stream a process takes in one step.
        epoch_length: steps.
        seed: root of all randomness.
        epoch: counted from 1.
        rank: number of this process.
        world: number of processes.

    Example:
        >>> steps = list(Streams({0: [5, 6, 7]}, batch_size=1, epoch_length=3, seed=0, epoch=1))
        >>> sorted(draw.item for step in steps for draw in step)
        [5, 6, 7]
    """

    def __init__(
        self,
        streams: dict[int, Sequence[int]],
        batch_size: int,
        epoch_length: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.streams = streams
        self.batch_size = batch_size
        self.epoch_length = epoch_length
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.epoch_length

    def __iter__(self) -> Iterator[list[Draw]]:
        orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        for step in range(self.epoch_length):
            yield [draw for number in self.streams for draw in self._step(number, step, orders)]

    def _step(self, number: int, step: int, orders: dict[tuple[int, int], NDArray[np.int64]]) -> Iterator[Draw]:
        indices = self.streams[number]
        together = self.batch_size * self.world
        start = ((self.epoch - 1) * self.epoch_length + step) * together
        for slot in range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size):
            turn, place = divmod(start + slot, len(indices))
            if (number, turn) not in orders:
                orders.pop((number, turn - 2), None)
                orders[number, turn] = np.random.default_rng([self.seed, number, turn]).permutation(len(indices))
            words = np.random.SeedSequence([self.seed, self.epoch, step, number, slot]).generate_state(1)
            yield Draw(number, indices[int(orders[number, turn][place])], int(words[0]))
