# SPDX-License-Identifier: Apache-2.0
"""How processes share the items of a list to be scored."""

from __future__ import annotations

import pytest

from fewlabel.data import rank_sampler, ranks


def shares(monkeypatch: pytest.MonkeyPatch, items: int, world: int) -> list[list[int] | None]:
    found = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank_and_world", lambda rank=rank: (rank, world))
        sampler = rank_sampler(range(items))
        found.append(None if sampler is None else list(sampler))
    return found


@pytest.mark.parametrize(("items", "world"), [(2, 2), (3, 2), (7, 3), (8, 3), (9, 3), (64, 8)])
def test_every_item_in_exactly_one_share(monkeypatch: pytest.MonkeyPatch, items: int, world: int) -> None:
    found = shares(monkeypatch, items, world)
    assert sorted(i for share in found if share is not None for i in share) == list(range(items))
    assert all(share for share in found), "a process without items waits for ever"


@pytest.mark.parametrize(("items", "world"), [(0, 2), (1, 2), (7, 8), (5, 1)])
def test_short_lists_are_seen_whole(monkeypatch: pytest.MonkeyPatch, items: int, world: int) -> None:
    assert shares(monkeypatch, items, world) == [None] * world


def test_without_other_processes() -> None:
    assert ranks.rank_and_world() == (0, 1)
    assert rank_sampler(range(4)) is None
