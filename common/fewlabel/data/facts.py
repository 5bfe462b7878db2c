# SPDX-License-Identifier: Apache-2.0
"""What must be known of an image or mask file before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.readers import AnyReader

_MAX_VALUES = 256


class Facts(NamedTuple):
    """Facts of one file.

    Args:
        error: why the file cannot be used at all; empty when it can, and then the rest holds.
        size: extent along each axis in MONAI's order: width, height[, depth].
        channels: how many.
        mode: color mode of a picture, else empty.
        finite: whether all values are finite.
        values: the smallest distinct values of a mask, at most 256; empty for images.
        distinct: how many distinct values the mask has.
        same_channels: whether all color channels of a mask agree.
        affine: the 4 x 4 grid-to-world matrix, row by row; empty for formats without one.
    """

    error: str = ""
    size: tuple[int, ...] = ()
    channels: int = 1
    mode: str = ""
    finite: bool = True
    values: tuple[float, ...] = ()
    distinct: int = 0
    same_channels: bool = True
    affine: tuple[float, ...] = ()


def read_facts(path: str, mask: bool) -> Facts:
    """Read a file through MONAI's readers and return its facts; a file that cannot be read gives ``error``.

    Args:
        path: a file or a DICOM folder.
        mask: whether to look at values as labels.
    """
    if not Path(path).exists():
        return Facts(error="does not exist")
    reader = AnyReader()
    try:
        opened = reader.read(path)
        pages = getattr(opened[1], "n_frames", 1) if getattr(opened[1], "format", "") == "TIFF" else 1
        mode = str(getattr(opened[1], "mode", ""))
        array, meta = reader.get_data(opened)
    except Exception as error:  # every library has its own; the sentence of the innermost says most
        return Facts(error=f"cannot be read ({_reason(error)})")
    if pages > 1:
        return Facts(error=f"has {pages} pages, of which only the first would be read")
    return _facts(np.asarray(array), meta, mode, mask)


def _reason(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 160 else words[:157] + "..."


def _facts(array: NDArray[Any], meta: dict[str, Any], mode: str, mask: bool) -> Facts:
    channel = meta.get("original_channel_dim", float("nan"))
    has_channels = not (isinstance(channel, str) or np.isnan(float(channel)))
    channels_last = np.moveaxis(array, int(channel), -1) if has_channels else array[..., None]
    affine = meta.get("affine") if not mode else None
    plain = Facts(
        size=tuple(int(n) for n in channels_last.shape[:-1]),
        channels=int(channels_last.shape[-1]),
        mode=mode,
        finite=bool(np.isfinite(array).all()) if array.dtype.kind == "f" else True,
        affine=() if affine is None else tuple(float(x) for x in np.asarray(affine).ravel()),
    )
    if not mask or array.size == 0 or not plain.finite:
        return plain
    colors = channels_last[..., :-1] if mode in ("LA", "PA", "RGBA") else channels_last
    values = _distinct(colors[..., 0])
    return plain._replace(
        values=tuple(float(v) for v in values[:_MAX_VALUES]),
        distinct=len(values),
        same_channels=bool((colors == colors[..., :1]).all()) if colors.shape[-1] > 1 else True,
    )


def _distinct(array: NDArray[Any]) -> NDArray[Any]:
    """Sorted distinct values; by counting where that beats sorting."""
    if array.dtype in (np.uint8, np.uint16):
        return np.flatnonzero(np.bincount(array.ravel(order="K")))
    return np.unique(array)
