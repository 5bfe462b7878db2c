# SPDX-License-Identifier: Apache-2.0
"""One process a run, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeVar

T = TypeVar("T")


def run_jobs(
    jobs: Iterable[tuple[T, Any]], work: Callable[[Any], None], slots: int, preload: Iterable[str] = ()
) -> Iterator[tuple[T, int]]:
    """Run jobs in processes of their own, at most ``slots`` at a time.

    Where the system can, processes are forked from a server that has imported ``preload`` once, which saves each its
    start-up. They end with this process, whatever ends it.

    Args:
        jobs: pairs of a name and the argument of ``work``; the next is taken when a slot is free, so the iterable may
            decide late, and may end early.
        work: a function of a module; its exceptions end only its own process.
        slots: how many processes at a time.
        preload: modules to import in the server.

    Yields:
        The name and exit code of each job, as they end; 0 is success.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*preload])
    waiting = iter(jobs)
    running: dict[Any, tuple[T, Any]] = {}
    try:
        while True:
            while len(running) < slots and (job := next(waiting, None)) is not None:
                process = context.Process(target=_guarded, args=(work, job[1]))
                process.start()
                running[process.sentinel] = job[0], process
            if not running:
                return
            for sentinel in wait(list(running)):
                name, process = running.pop(sentinel)
                process.join()
                yield name, process.exitcode
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _guarded(work: Callable[[Any], None], argument: Any) -> None:
    """Do the work, but end when the parent has gone: a run without its sweep would meet the next one's.

    Processes of its own (workers that read data) start as they do outside a sweep, not as this one did.
    """
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(argument)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
