# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from tests.kernels._threads import torch_threads

from fewlabel.kernels.contrast._order import rectangle, triangle
from fewlabel.kernels.tasks import run_tasks


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    with torch_threads(4):
        yield


@pytest.mark.parametrize("shares", [1, 3])
@pytest.mark.parametrize("tasks", [0, 1, 2, 50])
def test_every_task_is_done_once(tasks: int, shares: int) -> None:
    done: list[int] = []
    run_tasks(lambda task, share: done.append(task), tasks, shares)
    assert sorted(done) == list(range(tasks))


def test_who_is_free_takes_the_next() -> None:
    is_over = threading.Event()
    by_share: list[list[int]] = [[], []]

    def work(task: int, share: int) -> None:
        by_share[share].append(task)
        if task == 0:  # as long as all others together
            assert is_over.wait(60)
        elif task == 9:
            is_over.set()

    run_tasks(work, 10, 2)
    assert sorted(by_share, key=len) == [[0], list(range(1, 10))]


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_tasks_of_one_place_keep_their_order_and_never_overlap(shares: int) -> None:
    dice = random.Random(0)
    places = [tuple(dice.sample(range(6), dice.choice((1, 2, 3)))) for _ in range(300)]
    busy, order = Counter[int](), {place: list[int]() for place in range(6)}

    def work(task: int, share: int) -> None:
        for place in places[task]:
            busy[place] += 1
            order[place].append(task)
        if task % 7 == 0:
            time.sleep(0.001)  # others may go on meanwhile
        assert all(busy[place] == 1 for place in places[task])
        for place in places[task]:
            busy[place] -= 1

    run_tasks(work, len(places), shares, places)
    for place, done in order.items():
        assert done == [task for task, own in enumerate(places) if place in own]


def test_tasks_without_a_common_place_run_side_by_side() -> None:
    meet = threading.Barrier(3, timeout=60)  # passes only if three run at a time
    run_tasks(lambda task, share: [meet.wait()], 9, 3, [(task % 3, -1 - task) for task in range(9)])


def test_a_place_may_be_named_twice() -> None:
    done: list[int] = []
    run_tasks(lambda task, share: done.append(task), 4, 2, [(0, 0)] * 4)
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("culprit", [0, 1, 5])
def test_an_error_ends_those_who_wait(culprit: int) -> None:
    done: list[int] = []

    def work(task: int, share: int) -> None:
        if task == culprit:
            raise ArithmeticError(f"task {task}")
        done.append(task)

    with pytest.raises(ArithmeticError, match=f"task {culprit}"):
        run_tasks(work, 20, 4, [("all",)] * 20)
    assert done == list(range(culprit))
    assert torch.get_num_threads() == 4


def test_tasks_of_tasks() -> None:
    found: list[list[int]] = []

    def work(task: int, share: int) -> None:
        done: list[int] = []
        run_tasks(lambda inner, _: done.append(inner), 5, 16, [(0,)] * 5)
        found.append(done)

    run_tasks(work, 40, 16)
    assert found == [list(range(5))] * 40


@pytest.mark.parametrize("size", range(12))
def test_triangle_has_every_pair_once_in_rounds_without_a_common_number(size: int) -> None:
    tiles = triangle(size)
    assert sorted(tiles) == [(i, j) for i in range(size) for j in range(i, size)]
    rounds = [[pair for pair in tiles if sum(pair) % size == total] for total in range(size)]
    assert [pair for pairs in rounds for pair in pairs] == tiles
    for pairs in rounds:
        assert sorted(number for pair in pairs for number in set(pair)) == list(range(size))


@pytest.mark.parametrize("size", [8, 9, 29])
def test_a_number_of_the_triangle_waits_about_half_of_its_size(size: int) -> None:
    last: dict[int, int] = {}
    for at, pair in enumerate(triangle(size)):
        for number in set(pair):
            assert at - last.get(number, -size) >= size // 2
            last[number] = at


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 1), (1, 5), (5, 1), (3, 4), (4, 3), (6, 6)])
def test_rectangle_has_every_tile_once_and_neighbors_share_no_number(rows: int, columns: int) -> None:
    tiles = rectangle(rows, columns)
    assert sorted(tiles) == [(i, j) for i in range(rows) for j in range(columns)]
    if min(rows, columns) > 1:
        assert all(a != c and b != d for (a, b), (c, d) in itertools.pairwise(tiles))
