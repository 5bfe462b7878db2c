# SPDX-License-Identifier: Apache-2.0
"""Write a PNG row by row: Pillow wants the whole picture in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {("uint8", 1): (8, 0), ("uint16", 1): (16, 0), ("uint8", 3): (8, 2)}
_UP = 2


def write_png(path: str | Path, shape: tuple[int, ...], strips: Iterable[NDArray[Any]]) -> None:
    """Write a gray or RGB picture that comes in strips from top to bottom.

    Args:
        path: the file to make.
        shape: (H, W) or (H, W, 3) of the picture.
        strips: (h, W) uint8 or uint16, or (h, W, 3) uint8; the heights sum up to H.

    Raises:
        ValueError: a strip of another width, type or number of channels, or too few or too many rows.

    References:
        PNG specification, third edition, W3C 2025; each row is filtered by "up".
    """
    height, width = shape[:2]
    rows, above = 0, np.zeros(0, np.uint8)
    with Path(path).open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        packer = zlib.compressobj(level=3)
        for strip in strips:
            kind = _KINDS.get((strip.dtype.name, strip.shape[2] if strip.ndim == 3 else 1))
            if kind is None or strip.shape[1:] != tuple(shape[1:]):
                raise ValueError(f"expected strips (h, {shape[1:]}) of a PNG, received {strip.dtype} {strip.shape}.")
            if rows == 0:
                above = np.zeros(strip[0].nbytes, np.uint8)
                _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, *kind, 0, 0, 0))
            content = np.ascontiguousarray(strip, strip.dtype.newbyteorder(">")).reshape(len(strip), -1).view(np.uint8)
            filtered = np.full((len(strip), 1 + content.shape[1]), _UP, np.uint8)
            filtered[:, 1:] = content - np.concatenate([above[None], content[:-1]])
            above, rows = content[-1], rows + len(strip)
            _chunk(file, b"IDAT", packer.compress(filtered.tobytes()))
        if rows != height:
            raise ValueError(f"expected {height} rows, received {rows}.")
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: Any, name: bytes, content: bytes) -> None:
    if content or name == b"IEND":
        file.write(struct.pack(">I", len(content)) + name + content)
        file.write(struct.pack(">I", zlib.crc32(name + content)))
