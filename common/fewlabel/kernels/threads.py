# SPDX-License-Identifier: Apache-2.0
"""Coarse threads for tiled operators: one Python thread per share of the tiles, each with one thread inside torch.

Torch by itself splits every call over all threads and waits for the slowest. A tiled operator is hundreds of small
calls, so where other processes use the cores (data loaders, say) it would mostly wait. Shares meet once, at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

__all__ = ["run_shares", "share_count"]

_MOST = 16


def share_count(tasks: int, device: torch.device) -> int:
    """Return into how many shares to split a number of independent tasks.

    Args:
        tasks: how many tasks there are.
        device: where they compute; only CPU work is split.

    Returns:
        At most the number of torch's threads, the number of tasks, and 16; at least 1.
    """
    return max(1, min(tasks, torch.get_num_threads(), _MOST)) if device.type == "cpu" else 1


def run_shares(work: Callable[[int], None], shares: int) -> None:
    """Call ``work(0)`` ... ``work(shares - 1)`` side by side, each with a single thread inside torch.

    The first share runs on the calling thread. Shares write to disjoint places (or each to its own) and record no
    gradients. With one share this is a plain call, and torch keeps all its threads.

    Args:
        work: gets the number of its share.
        shares: how many; see :func:`share_count`.

    Raises:
        BaseException: the first that a share raised, once all have ended.
    """
    if shares == 1:
        with torch.no_grad():
            work(0)
        return
    inference, failures = torch.is_inference_mode_enabled(), list[BaseException]()

    def share(number: int) -> None:
        torch.set_num_threads(1)  # of this thread, and the initial value of threads born meanwhile
        try:
            with torch.inference_mode() if inference else torch.no_grad():  # both belong to a thread
                work(number)
        except BaseException as error:  # carried over to the calling thread
            failures.append(error)

    before = torch.get_num_threads()
    threads = [threading.Thread(target=share, args=(number,), daemon=True) for number in range(1, shares)]
    try:
        for thread in threads:
            thread.start()
        share(0)
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    if failures:
        raise failures[0]
