# SPDX-License-Identifier: Apache-2.0
"""Small helpers for files: atomic JSON, the cache folder, natural order, paths relative to a root."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """Return the folder for what can be made again: ``FEWLABEL_CACHE``, else ``fewlabel`` in the user's cache."""
    if chosen := os.environ.get("FEWLABEL_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fewlabel"


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON atomically: a reader sees the old file or the new one, never a part.

    Args:
        path: the file; its folder is made when missing.
        content: anything that :mod:`json` takes.

    Returns:
        The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def natural(path: str | Path) -> list[int | str]:
    """Sort key that counts: ``frame_2`` before ``frame_10``."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", str(path))]


def relative(path: str | Path, root: Path) -> str:
    """Return ``path`` relative to ``root`` with forward slashes; unchanged where it lies outside."""
    path = Path(path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def listed(value: Any) -> tuple[str, ...]:
    """Read a config or command-line value as a tuple of words: ``None``, ``"OP1,OP2"``, ``["OP1", 2]``, ``3``."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(str(part) for part in value)
    return (str(value),)
