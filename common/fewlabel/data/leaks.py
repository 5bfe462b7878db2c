# SPDX-License-Identifier: Apache-2.0
"""Labels that a training must not see: as long as it runs, its process cannot open them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fewlabel.errors import ConfigError

_LOG = logging.getLogger(__name__)

_Guard = dict[tuple[int, int], str]  # device and inode of a file to the case whose label it is

_guards: list[_Guard] = []  # one for each training that runs in this process
_installed = False


@contextmanager
def refuse_labels(labels: Mapping[str, str], allowed: Iterable[str] = ()) -> Iterator[None]:
    """Stop whatever opens one of these files while the block runs, in any thread, with the name of the case.

    Python tells every opening of a file to its audit hooks (PEP 578), and ours refuses these. Files are recognized by
    device and inode, so that relative paths, links and other names of a file make no difference. Forked processes
    inherit the refusal; those that are spawned get it by :func:`worker_guard`.

    Args:
        labels: label file (or folder of a DICOM label) to the case that it belongs to, as the sentence names it.
        allowed: files that may be opened all the same, because an item that training may see uses them too.

    Raises:
        ConfigError: out of the call that opens a label, while the block runs. The log says where that was.

    Note:
        Seen is what opens files through Python: Pillow, nibabel, pydicom, NumPy, tifffile. Not seen is what opens them
        in C (ITK, OpenCV, HDF5), other programs, and copies of a file. Where several trainings run at a time in one
        process, a file is refused only if all of them hold it back.

        An audit hook cannot be removed. Ours is installed by the first call, and costs every audited operation of
        Python a call that returns at once as long as no training runs.
    """
    guard = {file: case for path, case in labels.items() for file in _identities(path)}
    for path in allowed:
        for file in _identities(path):
            guard.pop(file, None)
    if guard:
        _install()
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def worker_guard() -> Callable[[int], None]:
    """Return what a worker process calls first, so that it refuses what its parent refuses now; it can be pickled."""
    return partial(_adopt, tuple(_guards))


def _adopt(guards: tuple[_Guard, ...], worker: int) -> None:
    if any(guards):
        _install()
    _guards[:] = guards


def _install() -> None:
    global _installed
    if not _installed:
        sys.addaudithook(_on_event)
        _installed = True


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guards or event != "open":
        return
    guards, file = tuple(_guards), _identity(arguments[0])
    if file is not None and guards and all(file in guard for guard in guards):
        label = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else "a file"
        message = f"training opened {label}, the label of {guards[0][file]}: nothing that it runs may read that file"
        _LOG.error("%s", message, stack_info=True)
        raise ConfigError(message)


def _identities(path: str) -> Iterator[tuple[int, int]]:
    """Device and inode of a file, or of each file in a folder; nothing where there is none."""
    here = Path(path)
    for file in here.iterdir() if here.is_dir() else (here,):
        if (found := _identity(file)) is not None:
            yield found


def _identity(path: Any) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - asked for every file that the process opens
    except (OSError, ValueError, TypeError):
        return None
    return status.st_dev, status.st_ino
