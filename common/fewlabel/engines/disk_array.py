# SPDX-License-Identifier: Apache-2.0
"""A map of numbers on disk, of which only the window that is used is in memory."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class DiskArray:
    """A two-dimensional array in a file, zeros at first.

    The file is mapped anew for each window, so that the memory of the process is that of the window; what the system
    keeps of the file besides is its cache.

    Args:
        path: the file to make; whoever made it removes it.
        shape: (H, W).
        dtype: of the numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = DiskArray(Path(folder) / "map", (2, 3), np.int32)
        ...     array[0:1, 1:3] = np.array([[5, 6]])
        ...     array[0:2, 0:2].tolist()
        ...     array.close()
        [[0, 5], [0, 0]]
    """

    def __init__(self, path: str | Path, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file = Path(path).open("w+b")  # noqa: SIM115 - closed by close()
        self._file.truncate(shape[0] * shape[1] * self.dtype.itemsize)

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        return np.array(self._mapped(window[0], mmap.ACCESS_READ)[:, window[1]])

    def __setitem__(self, window: tuple[slice, slice], values: NDArray[Any]) -> None:
        self._mapped(window[0], mmap.ACCESS_WRITE)[:, window[1]] = values

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _mapped(self, rows: slice, access: int) -> NDArray[Any]:
        pitch = self.shape[1] * self.dtype.itemsize
        ahead = rows.start * pitch % mmap.ALLOCATIONGRANULARITY  # a map begins where a page of memory does
        start, count = rows.start * pitch - ahead, rows.stop - rows.start
        buffer = mmap.mmap(self._file.fileno(), ahead + count * pitch, access=access, offset=start)
        return np.frombuffer(buffer, self.dtype, count * self.shape[1], ahead).reshape(count, self.shape[1])
