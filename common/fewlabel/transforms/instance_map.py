# SPDX-License-Identifier: Apache-2.0
"""From a map of probabilities to numbered instances, in strips: the same code for arrays and for maps on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fewlabel.kernels.components import StripComponents
from fewlabel.transforms.instance_rules import InstanceRules
from fewlabel.transforms.instance_table import InstanceTable
from fewlabel.transforms.split import split_component

STRIP_PX = 1 << 20


class Readable(Protocol):
    """A picture-like array of which windows are read: in memory, on disk, or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width first."""

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]: ...


class Grid(Readable, Protocol):
    """One of which windows are written, too."""

    def __setitem__(self, window: tuple[slice, slice], values: NDArray[Any]) -> None: ...


def find_instances(
    probability: Readable,
    labels: Grid,
    rules: InstanceRules,
    kinds: Readable | None = None,
    classes: int = 1,
    strip_px: int | None = None,
) -> InstanceTable:
    """Number the instances of an image.

    Args:
        probability: (H, W) float32, that a pixel is no background.
        labels: (H, W) int32; what it holds is replaced by 0 and the numbers 1, 2, ... of the instances, in raster order
            of their first pixels.
        rules: which pixels are instances.
        kinds: (H, W) uint8, class of each pixel, 1 ... classes; None for a single class.
        classes: classes besides the background.
        strip_px: pixels that are handled at once, None takes 2^20; the result does not depend on it.

    Returns:
        The table of the instances.

    Note:
        Memory: some 30 bytes a pixel of a strip and of the largest component that is split, and some 100 bytes a
        component. Time is linear in pixels; a split costs about a millisecond for each component that is large enough.
    """
    components = _components(probability, labels, rules, strip_px)
    table = InstanceTable(int(components.max()))
    for window, top in strips(labels.shape, strip_px):
        labels[window] = ids = components[labels[window]]
        table.add(ids, top=top)
    area, first = table.area, table.first
    if rules.split != "none":
        area, first = _split_all(probability, labels, rules, table)
    kept = np.flatnonzero(area >= rules.min_object_px)
    numbers = np.zeros(len(area) + 1, np.int32)
    numbers[1 + kept[np.argsort(first[kept], kind="stable")]] = np.arange(1, len(kept) + 1)
    table = InstanceTable(len(kept), classes)
    for window, top in strips(labels.shape, strip_px):
        labels[window] = ids = numbers[labels[window]]
        table.add(ids, probability[window], None if kinds is None else kinds[window], top)
    return table


def strips(shape: tuple[int, ...], strip_px: int | None = None) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Yield the windows of an image in strips from top to bottom, and their first rows.

    Args:
        shape: (H, W, ...).
        strip_px: pixels of a strip, at least a row; None takes 2^20.
    """
    rows = max(1, (STRIP_PX if strip_px is None else strip_px) // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield (slice(top, min(top + rows, shape[0])), slice(0, shape[1])), top


def _components(probability: Readable, labels: Grid, rules: InstanceRules, strip_px: int | None) -> NDArray[np.int32]:
    """Write provisional components into ``labels`` and return the table of their numbers."""
    holes = _holes(probability, labels, rules, strip_px)
    found = StripComponents(8)
    for window, _ in strips(labels.shape, strip_px):
        mask = probability[window] > rules.threshold
        if holes is not None:
            mask |= holes[labels[window]]
        labels[window] = found.push(torch.from_numpy(mask)).numpy()
    return found.numbers()


def _holes(probability: Readable, labels: Grid, rules: InstanceRules, strip_px: int | None) -> NDArray[np.bool_] | None:
    """Write provisional components of the background into ``labels`` and say which of them are filled."""
    if rules.max_hole_px == 0:
        return None
    found = StripComponents(4)
    areas, open_ = [np.zeros(1, np.int64)], [np.zeros(1, bool)]
    for window, top in strips(labels.shape, strip_px):
        before = found.count
        ids = found.push(torch.from_numpy(probability[window] <= rules.threshold)).numpy()
        labels[window] = ids
        inside = np.maximum(ids - before, 0)
        areas.append(np.bincount(inside.ravel(), minlength=found.count - before + 1)[1:])
        touches = np.zeros(found.count - before + 1, bool)
        border = [inside[:, 0], inside[:, -1]]
        border += [inside[0]] if top == 0 else []
        border += [inside[-1]] if window[0].stop == labels.shape[0] else []
        touches[np.concatenate(border)] = True
        open_.append(touches[1:])
    numbers = found.numbers()
    area, is_open = np.zeros(int(numbers.max()) + 1, np.int64), np.zeros(int(numbers.max()) + 1, bool)
    np.add.at(area, numbers, np.concatenate(areas))
    np.logical_or.at(is_open, numbers, np.concatenate(open_))
    filled = ~is_open if rules.max_hole_px is None else ~is_open & (area <= rules.max_hole_px)
    filled[0] = False
    return filled[numbers]


def _split_all(
    probability: Readable, labels: Grid, rules: InstanceRules, table: InstanceTable
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split components in place; areas and first pixels of what ``labels`` holds then, new numbers at the end."""
    height, width = labels.shape
    area, first, more = table.area.copy(), table.first.copy(), list[tuple[int, int]]()
    size = (table.boxes[:, 2:] - table.boxes[:, :2]).prod(1)
    for n in np.flatnonzero((area >= 2 * max(1, rules.min_object_px)) & (size <= rules.max_split_px)):
        y0, x0, y1, x1 = (int(v) for v in table.boxes[n])
        y0, x0, y1, x1 = max(0, y0 - 1), max(0, x0 - 1), min(height, y1 + 1), min(width, x1 + 1)
        window = slice(y0, y1), slice(x0, x1)
        ids = labels[window]
        pieces = split_component(ids == n + 1, probability[window], rules)
        if (count := int(pieces.max())) < 2:
            continue
        ids = np.where(pieces > 1, table.count + len(more) + pieces - 1, ids).astype(np.int32)
        labels[window] = ids
        flat = pieces.ravel()
        areas = np.bincount(flat, minlength=count + 1)
        at = np.array([np.argmax(flat == piece) for piece in range(1, count + 1)])
        starts = (y0 + at // (x1 - x0)) * width + x0 + at % (x1 - x0)
        area[n], first[n] = areas[1], starts[0]
        more += list(zip(areas[2:].tolist(), starts[1:].tolist(), strict=True))
    added = np.array(more, np.int64).reshape(-1, 2)
    return np.concatenate([area, added[:, 0]]), np.concatenate([first, added[:, 1]])
