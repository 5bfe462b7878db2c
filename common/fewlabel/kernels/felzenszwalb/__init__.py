# SPDX-License-Identifier: Apache-2.0
"""Superpixels by Felzenszwalb and Huttenlocher's graph-based segmentation, in 2-D and 3-D, for whole batches.

The compiled form returns what scikit-image's loop returns when edges of equal weight are taken in a fixed order, bit by
bit. scikit-image itself leaves that order to an unstable sort, whose result differs between processors; where no ties
decide (noisy or smoothed float images), the labels are scikit-image's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.felzenszwalb import cpu, reference
from fewlabel.kernels.felzenszwalb.graph import Graph, prepare
from fewlabel.kernels.grid import spatial_dims_of
from fewlabel.kernels.tasks import run_tasks
from fewlabel.kernels.threads import share_count

__all__ = ["VERSION", "felzenszwalb"]

VERSION = 1  # of the labels; to be raised with every change that may change one
_MODULES: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
_SMALLEST, _LARGEST = 1e-17, 1e30  # scales between which no threshold of a region leaves float32's range


def felzenszwalb(
    image: Tensor,
    scale: float = 1.0,
    sigma: float = 0.8,
    min_size: int = 20,
    spacing_mm: Sequence[float] | None = None,
    connectivity: int | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Divide each image into regions whose inner contrast is small against that to their neighbors.

    Edges between neighboring pixels p and q are taken from light to heavy. With o = q - p, of which n coordinates are
    not 0, and spacing s, the weight is w(p, q) = ||I_p - I_q||_2 sqrt(n / sum_i (o_i s_i / min s)^2): a difference over
    a longer way counts less, and for equal spacing the factor is 1. An edge joins two regions A and B if
    w < min(t_A, t_B), where t = (heaviest edge accepted so far) + (scale / 255) / (number of pixels). Then each edge,
    again from light to heavy, joins two regions of which one has fewer than ``min_size`` pixels.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W); any strides. Floats are taken as they are, integers are divided by the
            largest of their type, as scikit-image does; finite.
        scale: 0 or 1e-17 ... 1e30; larger gives larger regions. Proportional to the image's unit.
        sigma: >= 0, standard deviation of the Gaussian blur before, in pixels of the dimension with the finest spacing.
        min_size: >= 0, pixels.
        spacing_mm: H, W or D, H, W distance of neighbors; ``None`` for equal spacing. Only ratios matter.
        connectivity: neighbors of a pixel: 4 or 8 (2-D), 6, 18 or 26 (3-D); ``None`` for 8 or 26.
        backend: ``auto``, ``cpu`` (compiled) or ``reference`` (Python, slow); ``FEWLABEL_BACKEND`` replaces ``auto``.

    Returns:
        Labels (B, H, W) or (B, D, H, W) on the image's device, numbered from 0 in raster order of first pixels in each
        image: uint16 if all are below 65,536, else int32.

    Raises:
        ValueError: shape or a parameter does not fit; a value is NaN or infinite; the backend does not exist.
        TypeError: the image is complex.

    Note:
        Equal to ``skimage.segmentation.felzenszwalb`` 0.26 in 2-D without spacing, up to the order of equal weights
        and, from 8 channels on, of sums over channels (here in order, there dependent on memory layout). Images are
        dealt out to threads and do not depend on their number. Time is close to linear in edges; see
        :mod:`fewlabel.kernels.felzenszwalb.cpu` for the memory. Work is done on the CPU, whatever the device.

    References:
        Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", IJCV 59(2), 2004, section 4.

    Example:
        >>> image = torch.zeros(1, 1, 2, 4)
        >>> image[..., 2:] = 1
        >>> felzenszwalb(image, scale=1.0, sigma=0.0, min_size=0).tolist()
        [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    """
    spacing = _check(image, scale, sigma, min_size, spacing_mm)
    connectivity = connectivity or {2: 8, 3: 26}[len(spacing)]
    if spatial_dims_of(connectivity) != len(spacing):
        raise ValueError(f"connectivity {connectivity} does not fit an image of shape {tuple(image.shape)}")
    form = _MODULES[_backend.resolve("felzenszwalb", "cpu", backend, available=("cpu", "reference"))]
    graph = Graph.grid(connectivity, spacing)
    if math.prod(image.shape[2:]) * len(graph.offsets) >= 2**32:
        raise ValueError(f"an image must have fewer than 2^32 edges, got {tuple(image.shape[2:])}")
    labels = np.empty((image.shape[0], *image.shape[2:]), np.int32)

    def work(b: int, _: int) -> None:
        prepared = prepare(_array(image[b]), float(sigma), spacing)
        labels[b] = form.segment(prepared, graph, float(scale) / 255.0, int(min_size)).reshape(labels[b].shape)

    run_tasks(work, len(labels), share_count(len(labels), torch.device("cpu")))
    narrow = labels.size == 0 or labels.max() < 2**16
    return torch.from_numpy(labels.astype(np.uint16) if narrow else labels).to(image.device)


def _array(image: Tensor) -> NDArray[np.generic]:
    """One image for NumPy, which does not know all of torch's floating types."""
    image = image.detach().cpu()
    array: NDArray[np.generic] = (image.double() if image.is_floating_point() else image).numpy()
    return array


def _check(
    image: Tensor, scale: float, sigma: float, min_size: int, spacing_mm: Sequence[float] | None
) -> tuple[float, ...]:
    """Check everything but the values; return the spacing of each dimension of space."""
    if image.is_complex():
        raise TypeError(f"image must be real, got {image.dtype}")
    shape = tuple(image.shape)
    if image.ndim not in (4, 5) or 0 in shape[1:]:
        raise ValueError(f"expected an image (B, C, H, W) or (B, C, D, H, W), none but B empty, got {shape}")
    if not (scale == 0 or _SMALLEST <= scale <= _LARGEST):
        raise ValueError(f"scale must be 0 or between {_SMALLEST:g} and {_LARGEST:g}, got {scale}")
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be a finite number >= 0, got {sigma}")
    if min_size < 0 or min_size != int(min_size):
        raise ValueError(f"min_size must be a whole number >= 0, got {min_size}")
    spacing = tuple(map(float, spacing_mm)) if spacing_mm is not None else (1.0,) * (image.ndim - 2)
    if len(spacing) != image.ndim - 2 or not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(f"spacing_mm must be {image.ndim - 2} finite numbers > 0, got {spacing_mm}")
    return spacing
