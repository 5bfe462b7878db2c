# SPDX-License-Identifier: Apache-2.0
"""The cases of an evaluation, over all processes: files, rows of the metrics, names."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.engines import Workflow
from monai.utils import string_list_all_gather
from torch import Tensor


@dataclass(frozen=True)
class Cases:
    """What all processes evaluated together; each case stands here once, also where several processes saw it.

    Args:
        names: name of each case, relative to the data.
        rows: row of each case in the metrics' details, which stand rank after rank.
        owners: rank that keeps each case, and its place in what that rank saw.
    """

    names: list[str]
    rows: list[int]
    owners: list[tuple[int, int]]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(zip(self.names, self.rows, strict=True))


def gather_cases(files: list[str], data_root: str | Path | None = None) -> Cases:
    """Put the cases of all processes together; every process gets the same answer.

    Args:
        files: files that this process saw, in order.
        data_root: folder that names are relative to; None or empty takes the one that all cases share.
    """
    everything = string_list_all_gather(files)  # rank after rank, as the metrics' own details
    ranks = [int(rank) for rank in string_list_all_gather([str(idist.get_rank())] * len(files))]
    first = {file: row for row, file in reversed([*enumerate(everything)])}
    rows = sorted(first.values())
    root = Path(data_root).absolute() if data_root else None
    owners = [(ranks[row], row - ranks.index(ranks[row])) for row in rows]
    return Cases(_relative([everything[row] for row in rows], root), rows, owners)


def file_of(item: dict[str, Any], image_key: str = "image") -> str:
    """Return the file that an item of a batch was read from."""
    return str(item[image_key].meta["filename_or_obj"])


def key_scores(engine: Workflow, rows: list[int]) -> list[float]:
    """Return the key metric of each case; the mean over classes where there are several, NaN where it has none."""
    details: Tensor = engine.state.metric_details[engine.state.key_metric_name]
    values: list[float] = details.reshape(details.shape[0], -1).double().nanmean(1).tolist()
    return [values[row] for row in rows]


def ranked(scores: list[float], higher_is_better: bool = True) -> list[int]:
    """Return the places of all scores that are numbers, from the worst to the best; equal ones keep their order."""
    places = [i for i, score in enumerate(scores) if not math.isnan(score)]
    return sorted(places, key=lambda i: scores[i] if higher_is_better else -scores[i])


def _relative(files: list[str], root: Path | None) -> list[str]:
    """Name files from the data root; outside of it, or without one, from the folder that all of them share."""
    if root is None or not all(Path(file).is_relative_to(root) for file in files):
        root = Path(os.path.commonpath([str(Path(file).parent) for file in files])) if files else Path()
    return [Path(file).relative_to(root).as_posix() for file in files]
