# SPDX-License-Identifier: Apache-2.0
"""The ceiling of regions over their settings: a bound that is known before any training."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewlabel.files import atomic
from fewlabel.superpixels import RegionMap, region_ceiling

Row = dict[str, Any]
_SETTING = ("data", "images", "dims", "kind", "window", "body", "scale", "sigma_mm", "min_size")
_COLUMNS = (*_SETTING, "regions", "mean")


def ceiling_rows(
    data: str,
    items: Iterable[Any],
    read: Callable[[Any], tuple[Any, Any, Sequence[float] | None]],
    settings: Iterable[RegionMap],
    class_names: Mapping[int, str],
) -> list[Row]:
    """Return a row for each setting: how many regions an image has, and the best Dice that unions of them reach.

    Each image is read once. A 3-D image counts whole, also where its regions lie in slices, so that 2-D and 3-D can be
    compared; ``regions`` is their number in the whole image, on average. An image counts for the classes that it has;
    ``mean`` is over classes, of their means.

    Args:
        data: name of the data set.
        items: of *training* images: settings are chosen by this table.
        read: returns image (C, *space), labels (1, *space) and spacing.
        settings: of the regions.
        class_names: by label, without background.
    """
    wanted = list(settings)
    found: list[list[_Found]] = [[] for _ in wanted]
    for item in items:
        image, labels, spacing = read(item)
        for regions, outcomes in zip(wanted, found, strict=True):
            marked = regions(image, spacing)
            dice = region_ceiling(marked, labels, max(class_names) + 1).tolist()
            outcomes.append(_Found(int(marked.max()) + 1, regions.dims or image.ndim - 1, dice))
    return [_row(data, *pair, class_names) for pair in zip(wanted, found, strict=True)]


class _Found(NamedTuple):
    """What one setting gave for one image."""

    regions: int
    dims: int
    dice: list[float]


def _row(data: str, regions: RegionMap, found: Sequence[_Found], names: Mapping[int, str]) -> Row:
    means = {name: _mean([one.dice[label - 1] for one in found]) for label, name in names.items()}
    dims = found[0].dims
    facts: list[Any] = [data, len(found), dims, regions.kind]
    facts += [
        " to ".join(map(str, regions.window or ())),
        " ".join(f"{name}={value}" for name, value in (regions.body or {}).items()),
    ]
    facts += [regions.scale, regions.sigma_mm, regions.min_size_mm2 if dims == 2 else regions.min_size_mm3]
    facts += [round(_mean([one.regions for one in found])), _mean(means.values())]
    return dict(zip(_COLUMNS, facts, strict=True)) | means


def _mean(values: Iterable[float]) -> float:
    """Mean of what is known; NaN when nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def write_ceilings(path: str | Path, rows: Sequence[Row]) -> Path:
    """Write rows as CSV; classes of any data set become columns, empty where a set lacks them.

    Args:
        path: the file to make, or whose rows of other data sets and settings are kept.
        rows: of :func:`ceiling_rows`.
    """
    path, fresh = Path(path), [{key: str(_short(value)) for key, value in row.items()} for row in rows]
    kept: list[dict[str, str]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as stream:
            kept = list(csv.DictReader(stream))
    merged = {tuple(row.get(key) for key in _SETTING): row for row in (*kept, *fresh)}.values()
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in merged for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged)
    return path


def ceiling_table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table.

    Args:
        rows: of :func:`ceiling_rows`.
    """
    columns = [key for key in rows[0] if key not in ("data", "images", "window", "body")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(_short(row[key])) for key in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else value
