# SPDX-License-Identifier: Apache-2.0
"""Make the region maps of a whole data set before a training asks for them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd
from monai.transforms.traits import RandomizableTrait
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fewlabel.data.formats import files_of
from fewlabel.data.labels import Item
from fewlabel.data.memory import peak_bytes
from fewlabel.data.ranks import rank_and_world
from fewlabel.data.readers import AnyReader
from fewlabel.errors import ConfigError, DataError
from fewlabel.transforms import AddRegionsd

_Transform = Callable[..., Any]


class Made(NamedTuple):
    """What :func:`precompute_regions` did in this process and its workers.

    Args:
        items: images that were gone through.
        made: maps that were not there before.
        seconds: wall time.
        seconds_each: mean time for a map that was not there, without reading the image; 0 when there was none.
        peak_mb: largest memory of a process in megabytes; 0 where the system does not tell.
    """

    items: int
    made: int
    seconds: float
    seconds_each: float
    peak_mb: float

    def __str__(self) -> str:
        each = f" ({self.seconds_each:.2f} s each)" if self.made else ""
        return (
            f"{self.items} images: {self.made} region maps made{each}, {self.items - self.made} were there; "
            f"{self.seconds:.1f} s, {self.peak_mb:.0f} MB in the largest process"
        )


def precompute_regions(
    items: Sequence[Item],
    transform: _Transform | Sequence[_Transform],
    jobs: int = 0,
    image_key: str = "image",
    progress: bool = True,
) -> Made:
    """Make the maps that the first :class:`fewlabel.transforms.AddRegionsd` of a transform will ask for.

    Maps that are there are not made again, so a call that was killed goes on where it was; it only reads the images
    again. Under ``torchrun`` each process takes its share of the items.

    Args:
        items: dictionaries, such as those of a data list.
        transform: that of the training; what stands behind ``AddRegionsd`` is left out.
        jobs: worker processes; 0 works in this one.
        image_key: key of the image, whose file is named when it cannot be read.
        progress: show a bar with the time that is left.

    Returns:
        How many, how long, how much memory.

    Raises:
        ConfigError: the transform has no ``AddRegionsd``, or something random before it.
        DataError: images that cannot be used; raised at the end, when all others are done.
    """
    rank, world = _rank_and_world()
    mine = list(items)[rank::world]
    start = time.monotonic()
    loader = DataLoader(_Work(mine, transform, image_key), batch_size=None, num_workers=jobs)
    shown = tqdm(
        loader,
        "regions" if world == 1 else f"regions ({rank + 1} of {world})",
        len(mine),
        unit="image",
        disable=not progress,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 30.0,
    )
    done = list(shown)
    made = [one.seconds for one in done if one.seconds is not None]
    if problems := [one.problem for one in done if one.problem]:
        raise DataError(problems)
    seconds = time.monotonic() - start
    peak = max((one.peak for one in done), default=0) / 1e6
    return Made(len(mine), len(made), seconds, sum(made) / max(1, len(made)), peak)


def reading(keys: Sequence[str], orientation: str = "", spacing_mm: Sequence[float] | None = None) -> list[_Transform]:
    """Return transforms that read images and, after the first key, label maps as (C, *space).

    Args:
        keys: of an item; those that it lacks are passed over.
        orientation: axes such as ``RAS``; empty keeps those of the file.
        spacing_mm: of the grid to resample to; None keeps that of the file.
    """
    steps: list[_Transform] = [
        LoadImaged(keys, AnyReader(), image_only=True, allow_missing_keys=True),
        EnsureChannelFirstd(keys, allow_missing_keys=True),
    ]
    if orientation:
        steps.append(Orientationd(keys, orientation, labels=None, allow_missing_keys=True))
    if spacing_mm is not None:
        mode = ["bilinear", *["nearest"] * (len(keys) - 1)]
        steps.append(Spacingd(keys, spacing_mm, mode=mode, allow_missing_keys=True))
    return steps


class _Done(NamedTuple):
    """Outcome of an item: ``seconds`` is None where the map was there or there is a problem."""

    seconds: float | None
    peak: int
    problem: str = ""


class _Work(Dataset[_Done]):
    """The maps of items by index, as workers of a loader make them."""

    def __init__(self, items: Sequence[Item], transform: Any, image_key: str) -> None:
        steps = Compose(transform).flatten().transforms
        place = next((i for i, step in enumerate(steps) if isinstance(step, AddRegionsd)), None)
        if place is None:
            raise ConfigError("the transform has no AddRegionsd: there are no regions to make")
        if random := [type(step).__name__ for step in steps[:place] if isinstance(step, RandomizableTrait)]:
            raise ConfigError(f"{', '.join(random)} stands before AddRegionsd: move what is random behind it")
        self.items, self.read, self.add, self.image_key = items, Compose(steps[:place]), steps[place], image_key

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Done:
        if index >= len(self):
            raise IndexError(index)
        item = self.items[index]
        name = (files_of(item.get(self.image_key)) or (f"item {index}",))[0]
        try:
            image = self.read(dict(item))
        except Exception as error:  # every library has its own; the others shall be made all the same
            return _Done(None, 0, f"{name} cannot be read ({' '.join(str(error).split())[:160]})")
        try:
            start = time.monotonic()
            if self.add.file(image).is_file():
                return _Done(None, peak_bytes())
            self.add(image)
            return _Done(time.monotonic() - start, peak_bytes())
        except DataError as error:  # would end a worker
            return _Done(None, 0, error.problems[0])


def _rank_and_world() -> tuple[int, int]:
    """Also of processes that ``torchrun`` has started and that need not talk to each other."""
    rank, world = rank_and_world()
    return (rank, world) if world > 1 else (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
