# SPDX-License-Identifier: Apache-2.0
"""One way to read PNG, JPEG, TIFF, NIfTI and DICOM: MONAI's readers, chosen by what the file is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader, NibabelReader, PILReader, PydicomReader
from monai.utils import ensure_tuple

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


class AnyReader(ImageReader):
    """Read every supported format through the MONAI reader that suits it.

    MONAI chooses by suffix too, but knows no TIFF: it hands one to ITK, or to pydicom where ITK is missing. Use it as
    ``{"_target_": "LoadImaged", "keys": "@keys", "reader": "fewlabel.data.AnyReader"}``.
    """

    def __init__(self) -> None:
        self._readers: dict[str, ImageReader] = {
            "picture": PILReader(),
            "volume": NibabelReader(),
            "dicom": PydicomReader(),
        }

    def verify_suffix(self, filename: Any) -> bool:
        """Say whether each of the files is of a supported format.

        Args:
            filename: a path or several.
        """
        return all(kind(name) for name in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> tuple[str, Any]:
        """Open one file, one DICOM folder, or several files of one kind that become channels.

        Args:
            data: a path or several.
            kwargs: passed on to the MONAI reader.

        Returns:
            What :meth:`get_data` takes.

        Raises:
            ValueError: when the format is not supported, or the files are of different kinds.
        """
        names = [str(name) for name in ensure_tuple(data)]
        kinds = {kind(name) for name in names}
        if len(kinds) != 1 or not all(kinds):
            raise ValueError(f"cannot read {', '.join(names)}: expected files of one kind of {' '.join(SUFFIXES)}")
        found = kinds.pop()
        return found, self._readers[found].read(names if len(names) > 1 else names[0], **kwargs)

    def get_data(self, img: tuple[str, Any]) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Return the array, axes in MONAI's order (pictures as width, height[, channel]), and its metadata.

        Args:
            img: what :meth:`read` returned.
        """
        found, opened = img
        return self._readers[found].get_data(opened)


def files_of(value: Any) -> tuple[str, ...]:
    """Return the paths in an item's value: one, or several that are stacked as channels."""
    if isinstance(value, (str, Path)):
        return (str(value),)
    if isinstance(value, Sequence) and all(isinstance(part, (str, Path)) for part in value):
        return tuple(str(part) for part in value)
    return ()
