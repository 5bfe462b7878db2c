# SPDX-License-Identifier: Apache-2.0
"""Superpixels computed once and kept on disk, whichever process asks.

A label map lies in a file named by the SHA-256 of the image, the parameters and the version of the algorithm, so a
changed pixel or parameter means another file, and nothing ever becomes out of date. Files appear whole or not at all;
each begins with the SHA-256 of the rest, so a damaged one is noticed, reported in the log and computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.files import atomic, cache_dir
from fewlabel.kernels import felzenszwalb as kernel

__all__ = ["felzenszwalb"]

_DIGEST = 32
_logger = logging.getLogger(__name__)


def felzenszwalb(
    image: Tensor,
    scale: float = 1.0,
    sigma: float = 0.8,
    min_size: int = 20,
    spacing_mm: Sequence[float] | None = None,
    connectivity: int | None = None,
    *,
    folder: str | Path | None = None,
) -> Tensor:
    """Return what :func:`fewlabel.kernels.felzenszwalb.felzenszwalb` returns, from disk for images seen before.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W); each image of the batch is looked up by itself.
        scale: see the kernel, as for the parameters that follow.
        sigma: in pixels.
        min_size: in pixels.
        spacing_mm: H, W or D, H, W distance of neighbors.
        connectivity: 4, 8, 6, 18 or 26.
        folder: where the files lie; default ``superpixels`` in :func:`fewlabel.files.cache_dir` (``FEWLABEL_CACHE``).

    Returns:
        Labels (B, H, W) or (B, D, H, W) on the image's device, uint16 if all are below 65,536, else int32.

    Raises:
        ValueError: see the kernel.
        TypeError: see the kernel.

    Note:
        Any number of threads and processes may share a folder: the worst that happens is that two compute the same.
        A file takes some tens of kilobytes for 512 x 512 pixels. A folder that cannot be written to costs a warning,
        never the result. Delete what you like at any time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image = torch.rand(2, 1, 16, 16)
        ...     first, again = (felzenszwalb(image, 10.0, folder=folder) for _ in range(2))
        ...     len(list(Path(folder).rglob("*.labels"))), bool((first.int() == again.int()).all())
        (2, True)
    """
    parameters = scale, sigma, min_size, spacing_mm, connectivity
    if image.is_complex() or image.ndim not in (4, 5):
        return kernel.felzenszwalb(image, *parameters)  # which says what is wrong
    root = cache_dir() / "superpixels" if folder is None else Path(folder)
    paths = [root / key[:2] / f"{key}.labels" for key in (_key(one, parameters) for one in image)]
    found = [_read(path, tuple(image.shape[2:])) for path in paths]
    missing = [b for b, labels in enumerate(found) if labels is None]
    if missing or not found:
        for b, labels in zip(missing, kernel.felzenszwalb(image[missing], *parameters).cpu(), strict=True):
            found[b] = narrow = _narrow(labels.numpy())
            _write(paths[b], narrow)
    known = [labels for labels in found if labels is not None]  # all of them, by now
    stacked = np.stack(known) if known else np.empty((0, *image.shape[2:]), np.uint16)
    return torch.from_numpy(stacked).to(image.device)


def _key(image: Tensor, parameters: tuple[Any, ...]) -> str:
    """Name of the file: a digest of all on which the labels depend."""
    scale, sigma, min_size, spacing_mm, connectivity = parameters
    spacing = None if spacing_mm is None else [float(s) for s in spacing_mm]
    facts = [kernel.VERSION, float(scale), float(sigma), float(min_size), spacing, connectivity]
    facts += [str(image.dtype), list(image.shape)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _narrow(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels in the smallest of the two types."""
    return labels.astype(np.uint16) if labels.max() < 2**16 else labels


def _write(path: Path, labels: NDArray[Any]) -> None:
    """Store labels, compressed, behind their digest."""
    content = zlib.compress(labels.astype(labels.dtype.newbyteorder("<")).tobytes())
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
    except OSError as error:
        _logger.warning("superpixels are computed but not kept: %s", error)


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Labels of a file, or None if there is no such file or it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _logger.warning("superpixels are computed again: %s", error)
        return None
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        _logger.warning("superpixels are computed again: %s is damaged", path)
        return None
    content = zlib.decompress(data[_DIGEST:])
    dtype = np.dtype(np.uint16 if len(content) == 2 * math.prod(shape) else np.int32)
    return np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
