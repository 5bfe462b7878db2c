# SPDX-License-Identifier: Apache-2.0
"""Small helpers for paths: natural order, relative to a root, lists of words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


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
