# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever kills the process that writes them, and where to keep them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """Return the folder for what can be made again: ``FEWLABEL_CACHE``, else ``fewlabel`` in the user's cache."""
    if chosen := os.environ.get("FEWLABEL_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fewlabel"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there takes its place when the block ends well.

    Args:
        path: the file to make or replace; its folder is created.

    Yields:
        A path in the same folder, unique to this process, removed when the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> Path:
    """Write ``content`` as readable JSON, atomically; paths and devices become strings.

    Args:
        path: the file to make or replace.
        content: anything that ``json`` writes.

    Returns:
        The path written.
    """
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    return Path(path)


def move_aside(folder: str | Path, names: tuple[str, ...]) -> Path | None:
    """Move what exists of ``names`` in ``folder`` to ``folder/previous/<n>``, so that nothing is overwritten.

    Args:
        folder: where the files or sub-folders lie.
        names: those that belong together.

    Returns:
        The folder they went to, or None when there was nothing to move.
    """
    folder = Path(folder)
    present = [folder / name for name in names if (folder / name).exists()]
    if not present:
        return None
    previous = folder / "previous"
    number = 1 + max((int(p.name) for p in previous.glob("*") if p.name.isdigit()), default=0)
    target = previous / str(number)
    target.mkdir(parents=True)
    for path in present:
        path.rename(target / path.name)
    return target
