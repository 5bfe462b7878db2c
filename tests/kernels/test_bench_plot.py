# SPDX-License-Identifier: Apache-2.0
"""Pictures of benchmark rows: what is a panel, and which row counts."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.bench.plot")


def row(**changed: str) -> dict[str, str]:
    plain = {"device": "a CPU", "threads": "2", "case": "x", "mode": "forward", "B": "1", "N": "8", "C": "4"}
    times = {"implementation": "dense", "median_ms": "2", "q25_ms": "1", "q75_ms": "3", "peak_mib": "5"}
    return plain | times | changed


def test_the_latest_row_counts_and_kinds_are_panels(plot: ModuleType) -> None:
    rows = [row(), row(median_ms="7"), row(N="16"), row(mode="backward"), row(device="a GPU", threads="0")]
    panels = plot.grouped(rows, "N")
    own = "a CPU, 2 threads"
    assert list(panels) == [f"{own}\nforward, B 1, C 4", f"{own}\nbackward, B 1, C 4", "a GPU\nforward, B 1, C 4"]
    first = panels["a CPU, 2 threads\nforward, B 1, C 4"]
    assert [(r["N"], r["median_ms"]) for r in first] == [("8", "7"), ("16", "2")]


def test_numbers_do_not_tell_apart_what_would_then_be_single_points(plot: ModuleType) -> None:
    panels = plot.grouped([row(), row(N="16", C="5")], "N")
    assert list(panels) == ["a CPU, 2 threads\nforward"]


def test_numbers_tell_apart_what_would_fall_on_each_other(plot: ModuleType) -> None:
    panels = plot.grouped([row(B="1"), row(B="1", N="16", C="5"), row(B="2")], "N")
    assert {title: len(rows) for title, rows in panels.items()} == {
        "a CPU, 2 threads\nforward, B 1": 2,
        "a CPU, 2 threads\nforward, B 2": 1,
    }


def test_every_case_can_be_drawn(plot: ModuleType, tmp_path: Path) -> None:
    plot.main(out=str(tmp_path))
    published = {path.stem for path in (ROOT / "tools" / "bench" / "results").glob("*.csv")}
    assert {path.stem for path in tmp_path.glob("*.png")} == published
    assert all(path.stat().st_size < 300_000 for path in tmp_path.glob("*.png"))
