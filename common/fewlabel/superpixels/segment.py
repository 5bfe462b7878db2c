# SPDX-License-Identifier: Apache-2.0
"""Superpixels computed once and kept on disk, whichever process asks; see :mod:`fewlabel.superpixels.store`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewlabel.kernels import felzenszwalb as kernel
from fewlabel.superpixels import store

__all__ = ["felzenszwalb"]


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
    facts = _facts(*parameters)
    paths = [store.file_of(one, facts, folder) for one in image]
    found = [store.read(path, tuple(image.shape[2:])) for path in paths]
    missing = [b for b, labels in enumerate(found) if labels is None]
    if missing or not found:
        for b, labels in zip(missing, kernel.felzenszwalb(image[missing], *parameters).cpu(), strict=True):
            found[b] = narrow = store.narrow(labels.numpy())
            store.write(paths[b], narrow)
    known = [labels for labels in found if labels is not None]  # all of them, by now
    stacked = np.stack(known) if known else np.empty((0, *image.shape[2:]), np.uint16)
    return torch.from_numpy(stacked).to(image.device)


def _facts(scale: float, sigma: float, min_size: int, spacing_mm: Sequence[float] | None, *rest: Any) -> list[Any]:
    """All on which the labels depend besides the image."""
    spacing = None if spacing_mm is None else [float(s) for s in spacing_mm]
    return [kernel.VERSION, float(scale), float(sigma), float(min_size), spacing, *rest]
