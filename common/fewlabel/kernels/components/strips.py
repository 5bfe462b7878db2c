# SPDX-License-Identifier: Apache-2.0
"""Connected components of an image that comes in strips, from top to bottom, and is never whole in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.components._dispatch import components, values_of
from fewlabel.kernels.components.cpu import join

__all__ = ["StripComponents"]

_MOST = 2**31 - 1


class StripComponents:
    """Number the connected components of an image strip by strip.

    Each strip gets provisional labels at once. A union-find over them remembers which of them met at a seam; when the
    last strip has come, :meth:`numbers` says which provisional labels are one component.

    Args:
        connectivity: 4 or 8.

    Note:
        Memory: one strip, its last row, and 4 bytes for each provisional label, of which there is one for each
        component of each strip.

    Example:
        >>> import torch
        >>> strips = StripComponents(4)
        >>> strips.push(torch.tensor([[1, 0, 1]])).tolist(), strips.push(torch.tensor([[1, 1, 1], [0, 0, 0]])).tolist()
        ([[1, 0, 2]], [[3, 3, 3], [0, 0, 0]])
        >>> strips.numbers().tolist()
        [0, 1, 1, 1]
    """

    def __init__(self, connectivity: int) -> None:
        if connectivity not in (4, 8):
            raise ValueError(f"connectivity must be 4 or 8, got {connectivity!r}")
        self.connectivity = connectivity
        self.count = 0
        self._parent = np.zeros(1024, np.int32)
        self._above: NDArray[np.int32] | None = None

    def push(self, mask: Tensor) -> Tensor:
        """Label the next strip.

        Args:
            mask: (H, W), bool or integers, on the CPU; 0 is background. H may differ from strip to strip.

        Returns:
            Provisional labels (H, W), int32: ``count + 1`` and up, in raster order of their first pixels in the strip.

        Raises:
            ValueError: another width than the strips before, or not two dimensions.
            OverflowError: more provisional labels than int32 holds.
        """
        if mask.ndim != 2 or (self._above is not None and mask.shape[1] != len(self._above)):
            width = "W" if self._above is None else len(self._above)
            raise ValueError(f"expected a strip (H, {width}), got {tuple(mask.shape)}")
        labels, counts = components(values_of(mask, 2, by_label=False), self.connectivity, "auto")
        strip = labels.view(mask.shape).numpy()
        if not strip.size:
            return labels.view(mask.shape)
        self._grow(self.count + int(counts[0]))
        _shift(strip, self.count)
        self.count += int(counts[0])
        if self._above is not None:
            _seam(self._above, strip[0], self.connectivity == 8, self._parent)
        self._above = strip[-1].copy()
        return labels.view(mask.shape)

    def numbers(self) -> NDArray[np.int32]:
        """Return the component of each provisional label, (count + 1,) int32.

        Components are 1, 2, ... in raster order of their first pixels in the image; entry 0, the background, is 0.
        """
        table = self._parent[: self.count + 1].copy()
        _number(table)
        return table

    def _grow(self, count: int) -> None:
        if count > _MOST:
            raise OverflowError(f"expected at most {_MOST} components in all strips, got {count}")
        if count >= len(self._parent):
            grown = np.zeros(max(count + 1, 2 * len(self._parent)), np.int32)
            grown[: self.count + 1] = self._parent[: self.count + 1]
            self._parent = grown
        self._parent[self.count + 1 : count + 1] = np.arange(self.count + 1, count + 1)


@compiled
def _shift(labels: NDArray[Any], offset: int) -> None:
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != 0:
                labels[y, x] += offset


@compiled
def _seam(above: NDArray[Any], below: NDArray[Any], corners: bool, parent: NDArray[Any]) -> None:
    """Join what touches across a seam; the smaller root stays, which is the first in raster order."""
    reach = 1 if corners else 0
    for x in range(below.shape[0]):
        if below[x] == 0:
            continue
        for other in range(max(0, x - reach), min(above.shape[0], x + reach + 1)):
            if above[other] != 0:
                join(parent, below[x], above[other])


@compiled
def _number(table: NDArray[Any]) -> None:
    """Replace parents by numbers of components; a parent is never larger than its child."""
    count = 0
    for label in range(1, table.shape[0]):
        if table[label] == label:
            count += 1
            table[label] = count
        else:
            table[label] = table[table[label]]
