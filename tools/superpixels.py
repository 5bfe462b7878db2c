# SPDX-License-Identifier: Apache-2.0
"""Make the region maps of a data set before training, and tell how well regions fit organs.

Usage::

    python tools/superpixels.py precompute --dataset_dir DIR [--jobs 2] [--dims 2] [--min_size_mm2 200]
    python tools/superpixels.py ceiling --dataset_dir DIR --csv_file FILE [--dims 3] [--min_sizes 250,500,1000]

Other words are settings of ``fewlabel.superpixels.RegionMap``; ``--body "{threshold: -300}"`` cuts regions to the body.
A command that was stopped goes on where it was. ``torchrun --nproc_per_node 2 tools/superpixels.py precompute ...``
shares the images among processes or machines, ``--jobs`` among workers of one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import fire
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from fewlabel.data import precompute_regions, read_datalist, reading
from fewlabel.errors import ConfigError
from fewlabel.evidence.ceilings import ceiling_rows, ceiling_table, write_ceilings
from fewlabel.superpixels import KINDS, RegionMap
from fewlabel.transforms import AddRegionsd, spacing_of

_T = TypeVar("_T")


def precompute(
    dataset_dir: str,
    datalist: str = "datalist.json",
    config_file: Any = None,
    transform: str = "transforms::regions",
    orientation: str = "",
    spacing_mm: Sequence[float] | None = None,
    jobs: int = 0,
    **settings: Any,
) -> None:
    """Make the maps of the lists ``training`` and ``unlabeled``; print time and memory.

    Args:
        dataset_dir: folder of the data.
        datalist: its data list.
        config_file: a bundle's config, or several; then its transform makes the maps, and nothing else below counts
            but ``jobs``.
        transform: key of that transform, which holds ``AddRegionsd``.
        orientation: axes to turn volumes to, such as RAS; as in the training.
        spacing_mm: grid to resample to; as in the training.
        jobs: worker processes.
        **settings: of the regions.
    """
    source = read_datalist(dataset_dir, datalist)
    if config_file:
        parser = ConfigParser()
        parser.read_config(config_file)
        steps = parser.get_parsed_content(transform)
    else:
        steps = [*reading(["image"], orientation, spacing_mm), _made(AddRegionsd, settings)]
    items = [{"image": item["image"]} for item in (*source.training, *source.unlabeled, *source.partial_label)]
    print(precompute_regions(items, steps, jobs))


def ceiling(
    dataset_dir: str,
    csv_file: str,
    datalist: str = "datalist.json",
    name: str = "",
    orientation: str = "",
    spacing_mm: Sequence[float] | None = None,
    kinds: Any = KINDS,
    scales: Any = 1.0,
    sigmas_mm: Any = 1.0,
    min_sizes: Any = (250, 500, 1000),
    limit: int | None = None,
    **settings: Any,
) -> None:
    """Write and print, over settings, the best Dice that whole regions can reach on the *training* images.

    Args:
        dataset_dir: folder of the data.
        csv_file: gets a row for each setting; rows of other data sets and settings stay.
        datalist: its data list, Decathlon-style, with "labels".
        name: of the data set in the table; by default that of its folder.
        orientation: axes to turn volumes to, such as RAS.
        spacing_mm: grid to resample to.
        kinds: felzenszwalb, grid, random, or several.
        scales: of the algorithm, one or several.
        sigmas_mm: of the blur, one or several.
        min_sizes: of superpixels, one or several; square millimeters where the regions are 2-D, else cubic.
        limit: take this many training images only, evenly spread over the list.
        **settings: further ones of the regions.
    """
    source = read_datalist(dataset_dir, datalist)
    labeled = [item for item in source.training if "label" in item]
    if not labeled:
        raise ConfigError(f"datalist {source.source} has no training images with a label, which a ceiling needs")
    count = min(limit or len(labeled), len(labeled))
    items = [labeled[round(i * (len(labeled) - 1) / max(1, count - 1))] for i in range(count)]
    steps = Compose(reading(["image", "label"], orientation, spacing_mm))

    def read(item: dict[str, Any]) -> tuple[Any, Any, list[float] | None]:
        found = steps(dict(item))
        return found["image"], found["label"], spacing_of(found["image"])

    wanted = [
        _made(RegionMap, settings, kind=kind, scale=scale, sigma_mm=sigma, min_size_mm2=size, min_size_mm3=size)
        for scale, sigma, size, kind in itertools.product(*map(_listed, (scales, sigmas_mm, min_sizes, kinds)))
    ]
    names = _class_names(source.root / datalist)
    shown = tqdm(items, "ceiling", unit="image", disable=None)
    rows = ceiling_rows(name or source.root.name, shown, read, wanted, names)
    print(f"{write_ceilings(csv_file, rows)}\n\n{ceiling_table(rows)}")


def _made(make: Callable[..., _T], settings: dict[str, Any], **chosen: Any) -> _T:
    """Make regions with what the command has chosen and further settings from its line."""
    known = [field.name for field in fields(RegionMap) if field.name not in chosen]
    for name in settings:
        if name not in known:
            raise ConfigError(f"--{name} is no option of this command, whose regions also take {', '.join(known)}")
    try:
        return make(**chosen, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings of the regions: {error}") from error


def _listed(value: Any) -> list[Any]:
    """Read ``a,b``, ``[1, 2]`` or ``3``, whatever python-fire made of it."""
    return value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]


def _class_names(datalist: Path) -> dict[int, str]:
    """Names by label, from the list's "labels"; without background."""
    labels = json.loads(datalist.read_text(encoding="utf-8-sig")).get("labels")
    if not labels:
        raise ConfigError(f'datalist {datalist} has no "labels", such as {{"0": "background", "1": "liver"}}: add them')
    return {int(label): str(name) for label, name in labels.items() if int(label) > 0}


if __name__ == "__main__":
    fire.Fire({"precompute": precompute, "ceiling": ceiling})
