# SPDX-License-Identifier: Apache-2.0
"""Facts of files, read once and noted in the cache folder until the file changes."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from fewlabel.data.facts import Facts, read_facts
from fewlabel.files import SETTLED_NS, cache_dir, write_json

_FORMAT = 1  # raise it when Facts change: older notes are then ignored


class Notebook:
    """Facts of files, noted per folder in the cache and dropped as soon as a file changes.

    A note holds the size, modification time and change time of its file. Files that changed within the last two
    seconds are not noted, because a further change may not show in their times. Without write permission nothing is
    noted, and everything is read again next time.

    Args:
        folder: where the notes lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pages: dict[Path, dict[str, list[Any]]] = {}
        self._changed: set[Path] = set()

    def recall(self, path: str, mask: bool) -> Facts | None:
        """Return the facts of an unchanged file, or None.

        Args:
            path: a file or a DICOM folder.
            mask: whether it was read as a mask.
        """
        note = self._page(path).get(_key(path, mask))
        stamp = _stamp(path)
        if note is None or stamp is None or note[0] != stamp[0]:
            return None
        return Facts._make(tuple(value) if isinstance(value, list) else value for value in note[1])

    def look(self, path: str, mask: bool) -> Facts:
        """Return the facts of a file, from the notes or by reading it.

        Args:
            path: a file or a DICOM folder.
            mask: whether to read it as a mask.
        """
        known = self.recall(path, mask)
        if known is not None:
            return known
        before = _stamp(path)
        facts = read_facts(path, mask)
        after = _stamp(path)
        settled = before is not None and time.time_ns() - before[1] > SETTLED_NS
        if before is not None and settled and before == after and not facts.error:
            page = self._page(path)
            with self._lock:
                page[_key(path, mask)] = [before[0], list(facts)]
                self._changed.add(self._file(path))
        return facts

    def save(self) -> None:
        """Write what is new; a cache that cannot be written is no error."""
        for file in sorted(self._changed):
            try:
                write_json(file, {"format": _FORMAT, "notes": self._pages[file]})
            except OSError:
                continue  # nothing is lost but the time of the next check
        self._changed.clear()

    def _file(self, path: str) -> Path:
        parent = str(Path(path).absolute().parent)
        return self._folder / f"{hashlib.sha256(parent.encode()).hexdigest()[:24]}.json"

    def _page(self, path: str) -> dict[str, list[Any]]:
        file = self._file(path)
        with self._lock:
            if file not in self._pages:
                self._pages[file] = _read_page(file)
            return self._pages[file]


def _read_page(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return dict(content["notes"]) if content["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(path: str, mask: bool) -> str:
    return f"{'mask' if mask else 'image'}:{Path(path).name}"


def _stamp(path: str) -> tuple[str, int] | None:
    """Return a string that changes with the file, and when it last changed (ns); None where there is no file."""
    try:
        here = Path(path)
        files = [here, *sorted(p for p in here.iterdir() if p.is_file())] if here.is_dir() else [here]
        stats = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    parts = [f"{name}|{s.st_size}|{s.st_mtime_ns}|{s.st_ctime_ns}|{s.st_ino}" for name, s in stats]
    stamp = parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return stamp, max(max(s.st_mtime_ns, s.st_ctime_ns) for _, s in stats)


def notebook() -> Notebook:
    """Return the notebook of this process in the cache folder; it can be used from several threads."""
    return _notebook(cache_dir() / "facts")


@functools.lru_cache(maxsize=4)
def _notebook(folder: Path) -> Notebook:
    return Notebook(folder)


def is_empty_mask(path: str) -> bool:
    """Say whether a mask holds nothing but background; one that cannot be read is left to the pre-flight check.

    Args:
        path: a mask file.
    """
    stamp = _stamp(path)
    return False if stamp is None else _is_empty(path, stamp[0])


@functools.lru_cache(maxsize=65536)
def _is_empty(path: str, stamp: str) -> bool:
    facts = notebook().look(path, mask=True)
    return not facts.error and facts.finite and facts.values in ((), (0.0,))
