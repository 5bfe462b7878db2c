# SPDX-License-Identifier: Apache-2.0
"""The tree that the guards read: files, syntax trees (parsed once) and what git tracks."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "common" / "fewlabel"
SKIPPED = set(
    ".git .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis __pycache__ build dist models output".split()
)


@cache
def python_files(folder: Path) -> tuple[Path, ...]:
    """Return every Python file under ``folder``, sorted; empty when there is no such folder."""
    return tuple(sorted(folder.rglob("*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the files that git tracks and that exist; without git, what no .gitignore would hold."""
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*") if not SKIPPED & set(p.relative_to(ROOT).parts)]
    return tuple(sorted(p for p in paths if p.is_file() and not p.is_symlink()))


def text_of(path: Path) -> str | None:
    """Return the text of a file, or None for a binary one."""
    raw = path.read_bytes()
    try:
        return None if b"\0" in raw else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def shown(path: Path) -> str:
    """Return the path as messages print it: relative to the repository where it lies inside."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def refuse(offences: Sequence[str], rule: str) -> None:
    """Fail with one line an offence under the rule that they break; do nothing when there is none."""
    if offences:
        pytest.fail("\n  ".join([f"{rule} ({len(offences)}):", *offences]), pytrace=False)
