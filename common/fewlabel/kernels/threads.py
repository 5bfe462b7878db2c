# SPDX-License-Identifier: Apache-2.0
"""Coarse threads for tiled operators: one Python thread per share of the tiles, each with one thread inside torch.

Torch by itself splits every call over all threads and waits for the slowest. A tiled operator is hundreds of small
calls, so where other processes use the cores (data loaders, say) it would mostly wait. Shares meet once, at the end.
Threads of the pool never wait for one another, so that calls from several threads may use it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

__all__ = ["run_shares", "share_count"]

_MOST = 16
_OWN = threading.local()  # what a thread knows of itself


def share_count(tasks: int, device: torch.device) -> int:
    """Return into how many shares to split a number of independent tasks.

    Args:
        tasks: how many tasks there are.
        device: where they compute; only CPU work is split.

    Returns:
        At most the number of torch's threads, the number of tasks, and 16; at least 1.
    """
    return max(1, min(tasks, torch.get_num_threads(), _MOST)) if device.type == "cpu" else 1


def run_shares(work: Callable[[int], object], shares: int) -> None:
    """Call ``work(0)`` ... ``work(shares - 1)`` side by side, each with a single thread inside torch.

    The first share runs on the calling thread. Shares write to disjoint places (or each to its own) and record no
    gradients. A single share has one thread, too: torch's results can depend on how many it has.

    Args:
        work: gets the number of its share.
        shares: how many; see :func:`share_count`.

    Raises:
        BaseException: the first that a share raised, once all have ended.
    """
    inference, failures = torch.is_inference_mode_enabled(), list[BaseException]()

    def share(number: int) -> None:
        torch.set_num_threads(1)  # of this thread, and the initial value of threads born meanwhile
        try:
            with _without_gradients(inference):
                work(number)
        except BaseException as error:  # carried over to the calling thread
            failures.append(error)

    before, others = torch.get_num_threads(), list[Future[None]]()
    try:
        for number in range(1, shares):
            others += _submitted(share, number)
        share(0)
        for other in others:
            other.result()
    finally:
        torch.set_num_threads(before)
    if failures:
        raise failures[0]


def _without_gradients(inference: bool) -> contextlib.AbstractContextManager[object]:
    """What a share runs in; modes belong to a thread. Entering one takes as long as small work."""
    if inference:
        return torch.inference_mode()
    return torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext()


def _submitted(share: Callable[[int], None], number: int) -> list[Future[None]]:
    """Give a share to the pool; do it at once in a thread of the pool, which must not wait, and where there is none."""
    if not getattr(_OWN, "is_of_pool", False):
        with contextlib.suppress(RuntimeError):  # the interpreter is ending and starts no threads
            return [_pool().submit(share, number)]
    share(number)
    return []


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that wait for shares; to start them anew takes longer than many a share."""
    return ThreadPoolExecutor(_MOST - 1, "fewlabel", initializer=lambda: setattr(_OWN, "is_of_pool", True))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads are not inherited
