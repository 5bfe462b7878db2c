# SPDX-License-Identifier: Apache-2.0
"""Connected components of masks and label maps, in 2-D and 3-D, for whole batches on CPU and GPU.

Connectivity is named by the number of neighbors: 4 or 8 in 2-D, 6, 18 or 26 in 3-D. It also says how many of the last
dimensions are space; all others are a batch of independent images. Every backend gives the same integers: components
are numbered in raster order of their first pixels, so repeats, threads and devices do not matter. On a GPU with Triton
nothing waits for the device.
"""

from __future__ import annotations

from torch import Tensor

from fewlabel.kernels.components._dispatch import components, relabeled, values_of
from fewlabel.kernels.components.filters import fill_holes, largest_component, remove_small
from fewlabel.kernels.components.strips import StripComponents
from fewlabel.kernels.grid import spatial_dims_of

__all__ = ["StripComponents", "connected_components", "fill_holes", "largest_component", "relabel", "remove_small"]


def connected_components(
    mask: Tensor, connectivity: int, *, by_label: bool = False, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Number the connected components of each image.

    Args:
        mask: (..., H, W) or (..., D, H, W), bool or integers; 0 is background.
        connectivity: 4 or 8 (2-D), 6, 18 or 26 (3-D).
        by_label: neighbors are connected only where they hold the same value; else wherever both are not 0.
        backend: ``auto``, ``cpu`` (compiled), ``torch``, ``triton`` or ``reference``; ``FEWLABEL_BACKEND`` replaces
            ``auto``.

    Returns:
        Labels of the shape of ``mask`` and their number in each image (...), both int32. Components are 1, 2, ... in
        raster order of their first pixels, the background is 0.

    Raises:
        ValueError: connectivity, shape or size do not fit; the backend does not exist.
        TypeError: the mask is neither bool nor integers.

    Note:
        The compiled form takes time almost linear in pixels and, in each thread, temporary memory of up to 6 bytes a
        pixel (12 by label).

    References:
        Runs and union-find: He, Chao and Suzuki, "A run-based two-scan labeling algorithm", IEEE TIP 17(5), 2008.
        Atomic union-find: Playne and Hawick, "A new algorithm for parallel connected-component labelling on GPUs",
        IEEE TPDS 29(6), 2018.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1]])
        >>> labels, count = connected_components(mask, 4)
        >>> labels.tolist(), int(count)
        ([[1, 0, 2], [0, 3, 0], [0, 0, 4]], 4)
        >>> int(connected_components(mask, 8)[1])
        1
    """
    dims = spatial_dims_of(connectivity)
    labels, counts = components(values_of(mask, dims, by_label), connectivity, backend)
    return labels.view(mask.shape), counts.view(mask.shape[:-dims])


def relabel(labels: Tensor, spatial_dims: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Number the labels of each image 1, 2, ... in the order in which they appear in raster order; 0 stays 0.

    Args:
        labels: (..., H, W) or (..., D, H, W), bool or integers, any values.
        spatial_dims: 2 or 3: how many of the last dimensions are space.
        backend: see :func:`connected_components`.

    Returns:
        Labels of the same shape and their number in each image (...), both int32.

    Raises:
        ValueError: shape, size or ``spatial_dims`` do not fit; the backend does not exist.
        TypeError: labels are neither bool nor integers.

    Example:
        >>> import torch
        >>> relabel(torch.tensor([[7, 0, -3], [7, 7, 2]]), 2)[0].tolist()
        [[1, 0, 2], [1, 1, 3]]
    """
    numbers, counts = relabeled(values_of(labels, spatial_dims, by_label=True), backend)
    return numbers.view(labels.shape), counts.view(labels.shape[:-spatial_dims])
