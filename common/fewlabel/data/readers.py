# SPDX-License-Identifier: Apache-2.0
"""One way to read PNG, JPEG, TIFF, NIfTI and DICOM: MONAI's readers, chosen by what the file is."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader, NibabelReader, PILReader, PydicomReader
from monai.utils import ensure_tuple

from fewlabel.data.formats import SUFFIXES, kind


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
