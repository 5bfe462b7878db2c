# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fewlabel.data.streams import Streams


def _items(epochs: int = 1, number: int = 0, **options: Any) -> list[int]:
    defaults = {"streams": {0: range(7)}, "batch_size": 2, "epoch_length": 5, "seed": 0}
    return [
        draw.item
        for epoch in range(1, epochs + 1)
        for step in Streams(**{**defaults, **options, "epoch": epoch})
        for draw in step
        if draw.stream == number
    ]


def test_passes_are_whole_and_go_on_across_epochs() -> None:
    items = _items(epochs=7)  # 70 draws = 10 passes over 7 items
    passes = [items[i : i + 7] for i in range(0, 70, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 5


def test_epoch_is_a_function_of_its_number_alone() -> None:
    late = [list(step) for step in Streams({0: range(7)}, 2, 5, seed=0, epoch=6)]
    assert [d.item for step in late for d in step] == _items(epochs=6)[50:]
    assert late == [list(step) for step in Streams({0: range(7)}, 2, 5, seed=0, epoch=6)]


def test_seeds_of_items_never_repeat() -> None:
    seeds = [d.seed for e in (1, 2, 3) for step in Streams({0: range(3), 2: range(9)}, 4, 10, 0, e) for d in step]
    assert len(set(seeds)) == len(seeds) == 240 and all(0 <= seed < 2**32 for seed in seeds)
    other = [d.seed for step in Streams({0: range(3), 2: range(9)}, 4, 10, 1, 1) for d in step]
    assert not set(seeds) & set(other)


def test_streams_have_orders_of_their_own() -> None:
    options = {"streams": {0: range(50), 1: range(50)}, "batch_size": 10}
    assert _items(number=0, **options) != _items(number=1, **options)
    assert _items(number=0, **options) == _items(streams={0: range(50)}, batch_size=10)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_one_order(world: int) -> None:
    alone = list(Streams({0: range(40), 2: range(11)}, batch_size=6, epoch_length=4, seed=3, epoch=2))
    shares = [list(Streams({0: range(40), 2: range(11)}, 6 // world, 4, 3, 2, rank, world)) for rank in range(world)]
    for step, together in enumerate(alone):
        assert Counter(together) == Counter(draw for share in shares for draw in share[step])
    firsts = [{d.item for d in share[0] if d.stream == 0} for share in shares]
    assert len(set.union(*firsts)) == 6


def test_fewer_items_than_a_batch() -> None:
    step = next(iter(Streams({0: [5, 9]}, batch_size=6, epoch_length=1, seed=0, epoch=1)))
    assert Counter(draw.item for draw in step) == {5: 3, 9: 3}
    assert len({draw.seed for draw in step}) == 6
