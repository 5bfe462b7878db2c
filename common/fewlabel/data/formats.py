# SPDX-License-Identifier: Apache-2.0
"""Which files are images: known formats by suffix, and DICOM by its mark. No reader is imported for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
DICOM = (".dcm", ".dicom", ".ima")
SUFFIXES = (*PICTURES, *VOLUMES, *DICOM)
_KINDS = {**dict.fromkeys(PICTURES, "picture"), **dict.fromkeys(VOLUMES, "volume"), **dict.fromkeys(DICOM, "dicom")}


def suffix(path: str | Path) -> str:
    """Return the readable suffix of a file name in lower case, ``.nii.gz`` as one; empty when there is none."""
    name = Path(path).name.lower()
    return next((end for end in SUFFIXES if name.endswith(end) and len(name) > len(end)), "")


def stem(path: str | Path) -> str:
    """Return the file name without its readable suffix."""
    name = Path(path).name
    end = suffix(name)
    return name[: -len(end)] if end else name


def kind(path: str | Path) -> str:
    """Say what a path is: ``picture``, ``volume``, ``dicom`` (a file, or a folder that holds one series), or nothing.

    Files without a readable suffix are opened to look for the DICOM mark, which scanners' exports rely on.
    """
    path = Path(path)
    if found := _KINDS.get(suffix(path), ""):
        return found
    if path.is_dir():
        return "dicom" if any(_is_dicom(file) for file in sorted(path.iterdir())) else ""
    return "dicom" if _is_dicom(path) else ""


def _is_dicom(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix and not path.suffix[1:].isdecimal():  # a UID ends in ".123"
        return suffix(path) in DICOM
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def files_of(value: Any) -> tuple[str, ...]:
    """Return the paths in an item's value: one, or several that are stacked as channels."""
    if isinstance(value, (str, Path)):
        return (str(value),)
    if isinstance(value, Sequence) and all(isinstance(part, (str, Path)) for part in value):
        return tuple(str(part) for part in value)
    return ()
