# SPDX-License-Identifier: Apache-2.0
"""The part of the contract that speaks of a bundle as a release: licences, sizes, other people's paths, weights.

They are the checks that the review of MONAI's model zoo makes of every bundle; what it asks of metadata and configs
stands in ``contract.py``, and what has to be run in ``contract_monai.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from tests.guards._tree import ROOT, SKIPPED, text_of
from tests.guards.test_no_machine_paths import addresses, machine_paths

HEAVY = 25 * 2**20  # bytes; the zoo takes no larger file into git
SHA256 = re.compile(r"[0-9a-f]{64}")


def shipped(root: Path) -> list[Path]:
    """Return the files of a bundle but for weights and results."""
    files = (path for path in root.rglob("*") if not SKIPPED & set(path.relative_to(root).parts))
    return sorted(path for path in files if path.is_file())


def licences(root: Path) -> Iterator[str]:
    """The code's licence word for word, and terms of data and weights that the README points to."""
    if (root / "LICENSE").read_text(encoding="utf-8") != (ROOT / "LICENSE").read_text(encoding="utf-8"):
        yield "LICENSE is not that of the repository"
    if not (root / "docs" / "data_license.txt").read_text(encoding="utf-8").strip():
        yield "docs/data_license.txt is empty"
    section = (
        (root / "docs" / "README.md").read_text(encoding="utf-8").partition("\n## Licence\n")[2].partition("\n## ")[0]
    )
    yield from (f"README.md: 'Licence' does not name {n}" for n in ("LICENSE", "data_license.txt") if n not in section)


def places(root: Path) -> Iterator[str]:
    """No absolute path of a machine and no address of a person."""
    for path in shipped(root):
        text = text_of(path) or ""
        for number, found in (*machine_paths(text), *addresses(text)):
            yield f"{path.relative_to(root)}:{number} names {found}"


def sizes(root: Path) -> Iterator[str]:
    """What is heavy is downloaded, not shipped."""
    for path in shipped(root):
        if path.stat().st_size > HEAVY:
            yield f"{path.relative_to(root)} has {path.stat().st_size / 2**20:.0f} MB: list it in large_files.yml"


def weights(root: Path) -> Iterator[str]:
    """``large_files.yml`` names each file once, inside the bundle, with where it is from and a checksum."""
    file = root / "large_files.yml"
    if not file.is_file():
        return
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    entries = (content.get("large_files") if isinstance(content, Mapping) else None) or []
    if not entries:
        yield "large_files.yml lists nothing: it stands only where there are weights"
    paths = [str(entry.get("path")) for entry in entries]
    yield from (
        f"large_files.yml: {path} stands there twice" for path in sorted({p for p in paths if paths.count(p) > 1})
    )
    for entry in entries:
        yield from (f"large_files.yml: {entry.get('path')} {problem}" for problem in _entry(entry))


def _entry(entry: Mapping[str, Any]) -> Iterator[str]:
    path = PurePosixPath(str(entry.get("path") or ""))
    yield from (f"lacks '{key}'" for key in ("path", "url", "hash_val", "hash_type") if not entry.get(key))
    if path.is_absolute() or ".." in path.parts:
        yield "lies outside of the bundle"
    if entry.get("url") and not str(entry["url"]).startswith("https://"):
        yield f"is fetched from {entry['url']}, not by https"
    if entry.get("hash_type") not in (None, "sha256"):
        yield f"has a checksum of type {entry['hash_type']}, not sha256"
    elif entry.get("hash_val") and not SHA256.fullmatch(str(entry["hash_val"])):
        yield f"has the checksum {entry['hash_val']}, which is no sha256"


FILE_RULES: tuple[Callable[[Path], Iterator[str]], ...] = (licences, places, sizes, weights)
