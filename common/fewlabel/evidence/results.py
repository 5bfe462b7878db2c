# SPDX-License-Identifier: Apache-2.0
"""The row of a finished run, read from its folder."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from fewlabel.evidence.plan import Run
from fewlabel.evidence.rows import Row

# What differs between the runs of one sweep by design.
_PLACE = frozenset("label_budget split_seed seed hold_out splits".split())


def row_of(run: Run, folder: Path) -> Row:
    """Return what a run found, as text by column.

    Args:
        run: which run it is.
        folder: its folder, with the files that training and evaluation write.

    Returns:
        The fields of the run; ``list`` and ``cases`` scored; every metric; ``training_minutes`` (summed over epochs,
        so that a run that was stopped and resumed counts whole), ``wall_minutes`` (with start-up and evaluation),
        ``steps`` (both 0 where no network was fitted); ``settings``, a hash of all keys that decide the outcome but for
        the fields of the run: rows of one variant that differ in it are not comparable; ``machine``, ``torch`` and
        ``commit``.
    """
    found = _json(folder / "metrics.json")
    record = _json(folder / "run.json")
    seconds = epoch_seconds(folder)
    row = {name: str(value) for name, value in run._asdict().items()}
    row |= {"list": str(found["list"]), "cases": str(found["cases"])}
    row |= {name: f"{value:.4f}" for name, value in found["metrics"].items()}
    row["training_minutes"] = f"{sum(seconds) / 60:.2f}"
    row["wall_minutes"] = f"{_json(folder / 'wall.json')['seconds'] / 60:.2f}"
    row["steps"] = str(record["keys"]["max_epochs"] * record["keys"]["epoch_length"] if seconds else 0)
    identity = record.get("identity") or _json(folder / "models" / "resume" / "config.json")
    row["settings"] = _settings(identity, row["steps"])
    row["machine"] = str(record["machine"]["name"])
    return row | {"torch": str(record["versions"]["torch"]), "commit": str(record["commit"])[:10]}


def epoch_seconds(folder: Path) -> list[float]:
    """Return the seconds of each epoch of a run; empty where it fitted no network.

    Args:
        folder: of the run.
    """
    if not (folder / "history.csv").is_file():
        return []
    with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
        return [float(epoch["seconds"]) for epoch in csv.DictReader(stream)]


def _settings(identity: dict[str, Any], steps: str) -> str:
    kept = {key: value for key, value in identity.items() if key not in _PLACE} | {"steps": steps}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
