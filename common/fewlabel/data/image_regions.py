# SPDX-License-Identifier: Apache-2.0
"""Read windows of pictures that may be larger than memory, in the colors that the transforms would give."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tifffile
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewlabel.data.formats import kind, suffix
from fewlabel.errors import DataError
from fewlabel.transforms.rgb import ToRGB

WHOLE_PX = 1 << 27
CACHE_BYTES = 1 << 26
_TIFF = (".tif", ".tiff")
_ORIENTATION = 274
# What Pillow, tifffile and zlib raise for damaged files.
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, SyntaxError, struct.error, zlib.error, tifffile.TiffFileError)
_Window = Callable[[slice, slice], NDArray[Any]]


class ImageRegions:
    """A picture file of which windows are read, as float32 RGB between 0 and 1.

    Uncompressed TIFF is mapped, compressed TIFF is decoded tile by tile or strip by strip (the last ones are kept, at
    most 64 MiB). Of a pyramid the full resolution is read. PNG, JPEG, BMP, and TIFF of a kind that tifffile cannot
    decode piece by piece, have to be decoded whole; they are kept in 8 or 16 bits. Values are what
    ``LoadImaged(reader=AnyReader, dtype=None)``, ``EnsureChannelFirstd``, ``ToRGBd`` and ``Transposed`` give.

    Args:
        path: the file.
        whole_px: the most pixels of a file that has to be decoded whole.

    Raises:
        DataError: a file that is missing, damaged, of another kind, too large to be decoded whole, a stack of several
            pictures, or has no colors (palette, CMYK); the sentence names the remedy.

    Note:
        Memory beyond the window: 64 MiB and one segment for compressed TIFF, nothing for uncompressed TIFF, and the
        decoded file for the others, at most 384 MiB in 8-bit RGB.
    """

    def __init__(self, path: str | Path, whole_px: int = WHOLE_PX) -> None:
        self.path = Path(path)
        self._tiff: tifffile.TiffFile | None = None
        self._mode = ""
        try:
            self.shape, self._window = self._opened(whole_px)
        except _UNREADABLE as error:
            self.close()
            raise _refused(self.path, f"cannot be read ({error})") from None
        except DataError:
            self.close()
            raise

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return a window.

        Args:
            rows: start and stop within the image, no step.
            columns: likewise.

        Returns:
            (3, h, w), float32 in ``[0, 1]``.

        Raises:
            DataError: damaged segments, or pixels that are no colors.
            IndexError: a window that is empty or not inside the image.
        """
        for part, size in ((rows, self.shape[0]), (columns, self.shape[1])):
            if not 0 <= part.start < part.stop <= size:
                raise IndexError(f"expected a window inside {self.shape}, received {rows}, {columns}.")
        try:
            values = self._window(rows, columns)
        except _UNREADABLE as error:
            raise _refused(self.path, f"cannot be read ({error})") from None
        meta = {"filename_or_obj": str(self.path), "mode": self._mode}
        return torch.as_tensor(ToRGB()(MetaTensor(_tensor(values).movedim(-1, 0), meta=meta))).as_subclass(Tensor)

    def close(self) -> None:
        """Close the file."""
        if self._tiff is not None:
            self._tiff.close()

    def __enter__(self) -> ImageRegions:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _opened(self, whole_px: int) -> tuple[tuple[int, int], _Window]:
        _check_kind(self.path)
        if suffix(self.path) in _TIFF:
            self._tiff = tifffile.TiffFile(self.path)
            page = _only_page(self._tiff, self.path)
            shape = (int(page.imagelength), int(page.imagewidth))
            if not (reason := _needs_whole(page)):
                self._mode = {3: "P", 5: "CMYK"}.get(int(page.photometric), "")
                return shape, _Mapped(page, self.path) if page.is_memmappable else _Segments(page)
        else:
            shape, reason = image_size(self.path), f"as {suffix(self.path)[1:].upper()}"
        if math.prod(shape) > whole_px:
            raise _refused(
                self.path,
                f"has {shape[1]} x {shape[0]} pixels and {reason} must be decoded whole, which is done up to "
                f"{whole_px} pixels: save it as tiled TIFF, uncompressed or deflated",
            )
        with _sizes_are_checked(), Image.open(self.path) as picture:
            picture.load()
            self._mode = picture.mode
            pixels = np.asarray(picture)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return pixels.shape[:2], lambda rows, columns: pixels[rows, columns]


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the height and width of a picture file from its header.

    Args:
        path: PNG, JPEG, BMP or TIFF; of a pyramid the full resolution counts.

    Raises:
        DataError: a file that is missing, damaged, of another kind, or a stack of several pictures.
    """
    path = Path(path)
    _check_kind(path)
    try:
        if suffix(path) in _TIFF:
            with tifffile.TiffFile(path) as tiff:
                page = _only_page(tiff, path)
                height, width = int(page.imagelength), int(page.imagewidth)
                return (width, height) if int(page.tags.valueof(_ORIENTATION, 1)) > 4 else (height, width)
        with _sizes_are_checked(), Image.open(path) as picture:
            return picture.height, picture.width
    except Image.DecompressionBombError as error:
        raise _refused(path, f"is too large to be decoded ({error}): save it as tiled TIFF") from None
    except _UNREADABLE as error:
        raise _refused(path, f"cannot be read ({error})") from None


class _Mapped:
    """Windows of an uncompressed TIFF, mapped for each read so that the pages are given back."""

    def __init__(self, page: Any, path: Path) -> None:
        order = page.parent.byteorder
        self._of = path, np.dtype(page.dtype).newbyteorder(order), page.dataoffsets[0]
        planes, height, width, samples = page.shaped[0], page.imagelength, page.imagewidth, page.shaped[-1]
        self._shape = (planes, height, width, samples)
        self._finish = _finisher(page)

    def __call__(self, rows: slice, columns: slice) -> NDArray[Any]:
        path, dtype, offset = self._of
        mapped = np.memmap(path, dtype, "r", offset, self._shape)
        window = np.array(mapped[:, rows, columns])
        return self._finish(window)


class _Segments:
    """Windows of a compressed TIFF, from decoded tiles or strips of which the last ones are kept."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._tables = page.jpegtables
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        length = page.tilelength if page.is_tiled else page.rowsperstrip
        width = page.tilewidth if page.is_tiled else page.imagewidth
        self._step = min(int(length), int(page.imagelength)), int(width)
        self._grid = -(-page.imagelength // self._step[0]), -(-page.imagewidth // self._step[1])
        self._finish = _finisher(page)

    def __call__(self, rows: slice, columns: slice) -> NDArray[Any]:
        page, (length, width) = self._page, self._step
        planes, samples = int(page.shaped[0]), int(page.shaped[-1])
        out = np.full((planes, rows.stop - rows.start, columns.stop - columns.start, samples), page.nodata, page.dtype)
        for plane in range(planes):
            for i in range(rows.start // length, -(-rows.stop // length)):
                for j in range(columns.start // width, -(-columns.stop // width)):
                    segment = self._segment((plane * self._grid[0] + i) * self._grid[1] + j)
                    y, x = max(rows.start, i * length), max(columns.start, j * width)
                    part = segment[y - i * length : rows.stop - i * length, x - j * width : columns.stop - j * width]
                    out[plane, y - rows.start :, x - columns.start :][: part.shape[0], : part.shape[1]] = part
        return self._finish(out)

    def _segment(self, index: int) -> NDArray[Any]:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        page = self._page
        handle, count = page.parent.filehandle, page.databytecounts[index]
        handle.seek(page.dataoffsets[index])
        data = handle.read(count) if count else None
        decoded = page.decode(data, index, jpegtables=self._tables)[0]
        if decoded is None:  # a tile that was never written
            decoded = np.full((1, *self._step, page.shaped[-1]), page.nodata, page.dtype)
        self._kept[index] = segment = decoded[0]
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES:
            self._kept.popitem(last=False)
        return segment


def _finisher(page: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what makes (planes, h, w, samples) of a page the (h, w, channels) that Pillow would give."""
    is_color, is_white_zero = int(page.photometric) in (2, 6), int(page.photometric) == 0

    def finish(values: NDArray[Any]) -> NDArray[Any]:
        values = values[0] if values.shape[0] == 1 else np.moveaxis(values[..., 0], 0, -1)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if values.dtype == np.uint16 and is_color:
            values = (values >> 8).astype(np.uint8)
        return 255 - values if is_white_zero else values

    return finish


def _needs_whole(page: Any) -> str:
    """Return why Pillow must decode a page whole; nothing where tifffile can decode it piece by piece."""
    dtype, samples, photometric = np.dtype(page.dtype or "O"), int(page.samplesperpixel), int(page.photometric)
    plain = {("uint8", 0), ("uint8", 1), ("uint8", 2), ("uint8", 6), ("uint16", 1), ("uint16", 2), ("float32", 1)}
    palette = photometric in (3, 5)  # refused by name, whatever is in them
    if not palette and ((dtype.name, photometric) not in plain or page.bitspersample != 8 * dtype.itemsize):
        return f"with {page.bitspersample} bits of {page.photometric.name}"
    if samples > 1 and photometric < 2:
        return "as gray with alpha"
    if int(page.tags.valueof(_ORIENTATION, 1)) != 1:
        return "as a turned picture"
    if any(int(extra) == 1 for extra in page.extrasamples):
        return "with associated alpha"
    try:  # the decoder is chosen without decoding
        page.decode(None, 0)
    except ValueError as error:
        return f"in this compression ({error}; or pip install imagecodecs)"
    return ""


def _only_page(tiff: tifffile.TiffFile, path: Path) -> Any:
    """Return the page of full resolution; others may only be reduced images of it."""
    if not tiff.series:
        raise _refused(path, "cannot be read (no pages)")
    first: Any = tiff.series[0].levels[0]
    pages: list[Any] = [page for series in tiff.series[1:] for page in series.pages]
    if len(first.pages) != 1 or not (tiff.is_svs or all(page is None or page.is_reduced for page in pages)):
        raise _refused(path, f"has {len(tiff.pages)} pages, of which only one could be read: save each as a file")
    return first.pages[0].aspage()


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise _refused(path, "does not exist")
    if kind(path) != "picture":
        raise _refused(path, "is no picture: expected PNG, JPEG, BMP or TIFF")


def _tensor(values: NDArray[Any]) -> Tensor:
    values = np.ascontiguousarray(values)
    return torch.from_numpy(values.copy() if not values.flags.writeable else values)


def _refused(path: Path, problem: str) -> DataError:
    return DataError([f"'{path}' {problem}"])


@contextmanager
def _sizes_are_checked() -> Iterator[None]:
    """Silence Pillow's warning of large pictures: the limit here comes with a remedy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
