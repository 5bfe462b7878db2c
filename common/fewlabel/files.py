# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever kills the process that writes them, and where to keep them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabel.errors import ConfigError

SETTLED_NS = 2_000_000_000  # a file touched later than this before it was read may change within one clock tick


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


def content_digest(paths: Iterable[str | Path], missing_ok: bool = False) -> str:
    """Return a hash of the names and contents of files: the same wherever they lie, another when one changes.

    A file is read once by this process, until its size or one of its times changes.

    Args:
        paths: files, in the order that matters.
        missing_ok: a file that is not there counts by its name alone, for configs that are built without their data.

    Returns:
        64 hexadecimal digits.

    Raises:
        ConfigError: when a file cannot be read.

    Example:
        >>> content_digest([])[:8]
        'e3b0c442'
    """
    whole = hashlib.sha256()
    for path in map(Path, paths):
        try:
            content = _file_digest(path)
        except OSError as error:
            if not (missing_ok and isinstance(error, FileNotFoundError)):
                raise ConfigError(f"file '{path}' cannot be read: {error.strerror}") from None
            content = "missing"
        whole.update(f"{path.name}\0{content}\n".encode())
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    stat = path.stat()
    stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED_NS:
        return _read_digest.__wrapped__(path, stamp)
    return _read_digest(path, stamp)


@functools.lru_cache(maxsize=65536)
def _read_digest(path: Path, stamp: tuple[int, ...]) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
