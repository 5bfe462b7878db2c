# SPDX-License-Identifier: Apache-2.0
"""The folder that a converter fills: new, whole or absent, with the origin of everything in it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewlabel.data.files import relative
from fewlabel.errors import ConfigError
from fewlabel.files import write_json

MANIFEST = "manifest.json"


def source_folder(path: str | Path) -> Path:
    """Return the absolute path of a folder to read, or say that it is none."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--source {folder} is not a folder: name the one that the download was unpacked to")
    return folder


@contextmanager
def new_folder(output: str | Path, *subfolders: str) -> Iterator[Path]:
    """Yield a hidden neighbor of ``output`` that takes its name when the block ends well.

    Args:
        output: the folder to make.
        subfolders: folders to make in it.

    Yields:
        An empty folder but for ``subfolders``; it is removed when the block raises.

    Raises:
        ConfigError: ``output`` exists, or its parent cannot be written.
    """
    target = Path(output).expanduser().absolute()
    if target.exists():
        raise ConfigError(f"--output {target} exists and is not overwritten: name a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"--output {target} cannot be written ({error.strerror}): name another folder") from None
    try:
        draft.chmod(0o755)
        for name in subfolders:
            (draft / name).mkdir()
        yield draft
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_manifest(
    folder: Path, facts: Mapping[str, Any], root: Path, sources: Iterable[Path], images: Mapping[str, Any]
) -> None:
    """Write where a converted set comes from.

    Args:
        folder: the converted set.
        facts: converter, revision, rules, licence.
        root: the folder that was read; files are named relative to it.
        sources: every file that was read.
        images: what was found, by the name of an image.
    """
    files = [{"file": relative(path, root), "bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sources]
    write_json(folder / MANIFEST, {**facts, "sources": files, "images": dict(images)})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
