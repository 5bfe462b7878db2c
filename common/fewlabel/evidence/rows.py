# SPDX-License-Identifier: Apache-2.0
"""The CSV of a sweep: one row a run, from one machine or several."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping
from glob import glob
from pathlib import Path

from fewlabel.errors import ConfigError
from fewlabel.evidence.plan import Run
from fewlabel.files import atomic

Row = dict[str, str]
_LOG = logging.getLogger(__name__)


def run_of(row: Mapping[str, str]) -> Run:
    """Return which run a row is of."""
    return Run(row["variant"], int(row["label_budget"]), row["fold"], int(row["draw"]))


def read_rows(files: str | Path | Iterable[str | Path]) -> list[Row]:
    """Read and merge the rows of one or several files.

    Args:
        files: a path, a pattern such as ``results*.csv``, or several of them; what does not exist has no rows.

    Returns:
        One row a run; where files repeat a run, the first wins, with a warning when its figures differ.

    Raises:
        ConfigError: when a file is no table of a sweep.
    """
    merged: dict[Run, Row] = {}
    for path in _expand([files] if isinstance(files, (str, Path)) else files):
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in Run._fields if name not in (reader.fieldnames or [])]
            if missing:
                raise ConfigError(f"{path} has no column {missing[0]!r}: it is not the table of a sweep")
            for row in reader:
                first = merged.setdefault(run_of(row), row)
                if first is not row and first != row:
                    _LOG.warning("%s repeats the run %s with other figures; the first is kept", path, run_of(row))
    return list(merged.values())


def require_same_settings(rows: Iterable[Row]) -> None:
    """Refuse rows of one variant that were made with different keys: their mean would be of nothing.

    Args:
        rows: of :func:`read_rows`; those without the column ``settings`` pass.

    Raises:
        ConfigError: naming the variant and its settings.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.get("settings"):
            found.setdefault(row["variant"], set()).add(row["settings"])
    for variant, settings in found.items():
        if len(settings) > 1:
            raise ConfigError(
                f"the rows of {variant} were made with {len(settings)} different settings "
                f"({', '.join(sorted(settings))} in the column settings): keep them in separate files"
            )


def append_row(file: str | Path, row: Row) -> None:
    """Add a row, atomically; new columns are added to the table.

    Args:
        file: the CSV; its folder is created.
        row: text by column, the fields of :class:`~fewlabel.evidence.Run` among them.
    """
    rows: list[Row] = []
    if Path(file).is_file():
        with Path(file).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    rows.append(row)
    columns = list(dict.fromkeys(name for each in rows for name in each))
    with atomic(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _expand(files: Iterable[str | Path]) -> list[Path]:
    found: list[Path] = []
    for file in files:
        path = Path(file)
        found += [path] if path.is_file() else [Path(match) for match in sorted(glob(str(file)))]  # noqa: PTH207
    return list(dict.fromkeys(found))
