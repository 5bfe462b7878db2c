# SPDX-License-Identifier: Apache-2.0
"""Write a drawn data set once, whole or not at all, whoever else is writing it at the same time."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabel.errors import ConfigError

DATALIST = "datalist.json"
LISTS = ("training", "validation", "unlabeled", "test", "partial_label")
_FILES = ("image", "label", "class_label")


def write_once(folder: str | Path, identity: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Fill a folder through ``write``, unless it is already filled.

    The files are written into a hidden neighbor, which is renamed when it is complete: a reader never sees half a
    set, and of several processes one wins and the others take its work.

    Args:
        folder: where the set shall be.
        identity: what decides the content; it must stand under ``phantom`` in the data list that ``write`` makes.
        write: called with an empty folder, fills it, data list included.

    Returns:
        ``folder``, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    target = Path(folder).expanduser().absolute()
    if _is_complete(target, identity):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ConfigError(
            f"phantom data cannot be written to '{target}' ({error.strerror}): set FEWLABEL_CACHE to a folder of yours."
        ) from None
    try:
        draft.chmod(0o755)
        write(draft)
        _move(draft, target, identity)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _move(draft: Path, target: Path, identity: dict[str, Any]) -> None:
    try:
        draft.rename(target)
    except OSError:
        if _is_complete(target, identity):  # another process was faster
            return
        if not _is_ours(target, identity):
            raise
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        target.rename(aside / "old")  # ours, but files are missing
        draft.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def _is_complete(folder: Path, identity: dict[str, Any]) -> bool:
    """Return whether the folder holds this set with all its files; refuse a folder that holds anything else."""
    if not folder.exists():
        return False
    if not _is_ours(folder, identity):
        if folder.is_dir() and not any(folder.iterdir()):
            return False
        raise ConfigError(f"'{folder}' holds something else than this phantom set: remove it or choose another folder.")
    content = json.loads((folder / DATALIST).read_text())
    items = [item for name in LISTS for item in content.get(name, [])]
    return all((folder / item[key]).is_file() for item in items for key in _FILES if key in item)


def _is_ours(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        found = json.loads((folder / DATALIST).read_text())["phantom"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == json.loads(json.dumps(identity)))


def save_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a picture or mask as PNG, fast: noise does not compress, and masks are runs of equal values."""
    Image.fromarray(pixels).save(path, compress_level=1, compress_type=zlib.Z_RLE)
