# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from tests.kernels._threads import torch_threads

from fewlabel.kernels.threads import run_shares, share_count


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    with torch_threads(4):
        yield


def test_share_count() -> None:
    assert share_count(10, torch.device("cpu")) == 4
    assert share_count(3, torch.device("cpu")) == 3
    assert share_count(0, torch.device("cpu")) == 1
    assert share_count(10, torch.device("cuda")) == 1


def test_shares_run_on_threads_of_one_torch_thread_without_gradients() -> None:
    meet = threading.Barrier(3, timeout=60)  # passes only if the shares run side by side
    seen: dict[int, tuple[str, int, bool]] = {}

    def work(share: int) -> None:
        meet.wait()
        seen[share] = threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()

    run_shares(work, 3)
    assert {threads for _, threads, _ in seen.values()} == {1}
    assert {grad for *_, grad in seen.values()} == {False}
    assert len({name for name, *_ in seen.values()}) == 3
    assert seen[0][0] == threading.current_thread().name
    assert torch.get_num_threads() == 4
    assert torch.is_grad_enabled()
    born: list[int] = []
    after = threading.Thread(target=lambda: born.append(torch.get_num_threads()))
    after.start()
    after.join()
    assert born == [4]


def test_a_single_share_has_one_thread_too() -> None:
    seen: list[int] = []
    run_shares(lambda share: seen.append(torch.get_num_threads()), 1)
    assert seen == [1]
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("culprit", [0, 2])
def test_an_error_of_a_share_arrives_and_threads_are_put_back(culprit: int) -> None:
    def work(share: int) -> None:
        if share == culprit:
            raise ArithmeticError(f"share {share}")

    with pytest.raises(ArithmeticError, match=f"share {culprit}"):
        run_shares(work, 3)
    assert torch.get_num_threads() == 4


def test_inference_mode_reaches_the_shares() -> None:
    with torch.inference_mode():
        total = torch.zeros(3)
        run_shares(lambda share: total[share].add_(share), 3)
    assert total.tolist() == [0, 1, 2]


def sums(shares: int) -> list[int]:
    found = [0] * shares

    def work(share: int) -> None:
        found[share] = share + 1

    run_shares(work, shares)
    return found


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert sums(3) == [1, 2, 3]  # the parent's threads wait for more by now
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(sums(3)))
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0
    assert queue.get() == [1, 2, 3]


def test_callers_share_the_threads() -> None:
    found: list[list[int]] = []
    callers = [threading.Thread(target=lambda: found.append(sums(16))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert found == [list(range(1, 17))] * 8


def test_shares_of_shares_do_not_wait_for_a_free_thread() -> None:
    found: list[list[int]] = []
    run_shares(lambda share: found.append(sums(16)), 16)  # as many as the pool has threads, and the caller
    assert found == [list(range(1, 17))] * 16


def test_a_thread_that_outlives_the_main_thread_still_computes() -> None:
    program = """
import threading, time
from fewlabel.kernels.threads import run_shares

def late():
    threading.main_thread().join()
    time.sleep(0.2)
    done = []
    run_shares(done.append, 3)
    print(sorted(done))

threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[0, 1, 2]", done.stderr
