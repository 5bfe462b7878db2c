# SPDX-License-Identifier: Apache-2.0
"""Tasks of a tiled operator, given out to threads one by one: whoever is free takes the next.

Where tasks add to a common place, the order of the summands decides the last bits. It is fixed by letting tasks of one
place run one after another in the order of their numbers, each as soon as its turn has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence

from fewlabel.kernels.threads import run_shares

__all__ = ["run_tasks"]


def run_tasks(
    work: Callable[[int, int], object], tasks: int, shares: int, places: Sequence[Iterable[Hashable]] | None = None
) -> None:
    """Call ``work(task, share)`` for the tasks 0 ... ``tasks - 1``, side by side on a number of shares.

    Args:
        work: gets the number of the task and of the share that does it: tasks of a share never overlap.
        tasks: how many there are.
        shares: how many run at a time; see :func:`fewlabel.kernels.threads.share_count`.
        places: what each task writes to: tasks with a common place never overlap and run in the order of their numbers,
            so results do not depend on the number of shares. ``None`` where no two tasks have one.

    Raises:
        BaseException: the first that a task raised, once all tasks that had begun have ended; others do not begin.
    """
    if shares == 1:
        run_shares(lambda share: [work(task, share) for task in range(tasks)], 1)
    else:
        queue = _Queue(tasks, places)
        run_shares(lambda share: queue.serve(work, share), shares)


class _Queue:
    """Tasks in the order of their numbers.

    A thread waits only for tasks with smaller numbers, which others have taken before: the smallest never waits.
    """

    def __init__(self, tasks: int, places: Sequence[Iterable[Hashable]] | None) -> None:
        self.earlier = _last_of_each(places) if places else [set[int]() for _ in range(tasks)]
        self.numbers = iter(range(tasks))
        self.is_done = [False] * tasks
        self.is_given_up = False
        self.change = threading.Condition()

    def serve(self, work: Callable[[int, int], object], share: int) -> None:
        """Do one task after another until none is left."""
        try:
            while (task := self._take()) is not None:
                work(task, share)
                with self.change:
                    self.is_done[task] = True
                    self.change.notify_all()
        except BaseException:
            with self.change:
                self.is_given_up = True
                self.change.notify_all()
            raise

    def _take(self) -> int | None:
        """Return the next task once its turn has come."""
        with self.change:
            task = None if self.is_given_up else next(self.numbers, None)
            if task is not None:
                self.change.wait_for(lambda: self.is_given_up or all(self.is_done[t] for t in self.earlier[task]))
            return None if self.is_given_up else task


def _last_of_each(places: Sequence[Iterable[Hashable]]) -> list[set[int]]:
    """Return, for every task, the last earlier tasks that have its places."""
    earlier, last = list[set[int]](), dict[Hashable, int]()
    for task, own in enumerate(places):
        own = tuple(own)
        earlier.append({last[place] for place in own if place in last})
        last.update(dict.fromkeys(own, task))
    return earlier
