# SPDX-License-Identifier: Apache-2.0
"""The page of the benchmark: which measurement counts, how alternatives are weighed, and that it is up to date."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.bench.page")


def row(**changed: str) -> dict[str, str]:
    plain = {"date": "1", "device": "a CPU", "threads": "2", "torch": "3", "case": "x", "mode": "forward", "N": "8"}
    return plain | {"implementation": "ours", "median_ms": "2", "peak_mib": "5"} | changed


def test_latest_measurement_counts_as_a_whole(page: ModuleType) -> None:
    rows = [row(), row(implementation="gone"), row(N="16", median_ms="3"), row(N="16", implementation="dense")]
    rows += [row(date="2", median_ms="4"), row(date="2", implementation="dense", median_ms="10", peak_mib="20")]
    rows += [row(date="2", implementation="loop", median_ms="1", peak_mib="1")]
    lines = page.tables(rows).splitlines()
    assert lines[0] == "**a CPU, 2 threads**, torch 3; mode forward"
    assert lines[2] == "| N | ours, ms | dense, ms | loop, ms | times faster | memory, MiB |"
    assert lines[4] == "| 8 | 4 | 10 | 1 | 0.25 to 2.5 | 5 (others from 1) |"
    assert lines[5] == "| 16 | 3 | 2 |  | 0.667 | 5 (others from 5) |"
    assert lines[-1] == "On a GPU: not yet measured."
    assert page.tables(rows, is_for_gpu=False).splitlines()[-1] == "There is no form for a GPU."
    assert page.tables([]) == "Not yet measured."
    assert "not yet" not in page.tables([row(), row(device="a GPU", threads="0")])


def test_time_of_a_queued_call_is_shown_where_it_was_taken(page: ModuleType) -> None:
    dense = {"implementation": "dense", "queued_ms": "7"}
    rows = [row(queued_ms="1"), row(**dense), row(N="16", queued_ms="nan"), row(N="16", **dense)]
    lines = page.tables(rows).splitlines()
    assert lines[2] == "| N | ours, ms | dense, ms | queued, ms | times faster | memory, MiB |"
    assert lines[4] == "| 8 | 2 | 2 | 1 | 1 | 5 (others from 5) |"
    assert lines[5] == "| 16 | 2 | 2 |  | 1 | 5 (others from 5) |"
    assert "queued" not in page.tables(rows[2:])


def test_page_is_up_to_date(page: ModuleType) -> None:
    text = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    for name in page.cases.names():
        expected = page.section(name, ROOT / "tools" / "bench" / "results" / f"{name}.csv")
        shown = text.partition(f"<!-- bench-{name}:begin -->\n")[2].partition(f"<!-- bench-{name}:end -->")[0]
        assert shown.strip() == expected, f"{name}: run tools/bench/page.py"
