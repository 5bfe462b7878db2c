# SPDX-License-Identifier: Apache-2.0
"""How long a sweep will take, from rows that are there or from a short pilot of each variant."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewlabel.evidence.results import epoch_seconds
from fewlabel.evidence.rows import Row

PILOT_EPOCHS = 2  # the first fills caches, the second tells


def known_minutes(rows: Iterable[Row]) -> dict[str, float]:
    """Return the mean wall minutes of a run, by variant.

    Args:
        rows: of finished runs.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("wall_minutes"):
            found[row["variant"]].append(float(row["wall_minutes"]))
    return {name: statistics.fmean(minutes) for name, minutes in found.items()}


def pilot_minutes(folder: Path, epochs: int) -> float:
    """Return the wall minutes of a whole run, judged by a pilot of two epochs and an evaluation.

    Stages before the final training are in the pilot whole, and shared by later runs: the first runs pay for them.

    Args:
        folder: of the pilot.
        epochs: of a whole run.
    """
    seconds = epoch_seconds(folder)
    wall = float(json.loads((folder / "wall.json").read_text(encoding="utf-8"))["seconds"])
    return (wall + ((epochs - len(seconds)) * seconds[-1] if seconds else 0.0)) / 60


def epochs_of(bundle: Path, configs: Sequence[str], keys: dict[str, object]) -> int:
    """Return ``max_epochs`` of a run without opening its config as MONAI does.

    Args:
        bundle: folder of the bundle.
        configs: config files by stem; later ones win.
        keys: given keys, which win over all files.
    """
    found: object = None
    for name in configs:
        content = json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        found = content.get("max_epochs", found)
    return int(str(keys.get("max_epochs", found)))
