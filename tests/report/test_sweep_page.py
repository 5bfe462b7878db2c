# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep: its figures are those of the rows, and nothing is claimed that the interval does not bear."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.evidence.conftest import bundle, plan, table
from tests.evidence.test_tables import FIGURES, Table
from tests.report.folders import Page

from fewlabel.errors import ConfigError
from fewlabel.evidence import Plan, append_row
from fewlabel.report import write_sweep
from fewlabel.report.page import MINUS

__all__ = ["bundle", "plan", "table"]  # fixtures


@pytest.fixture
def rows(tmp_path: Path, table: Table) -> Path:
    file = tmp_path / "rows.csv"
    for row in table(FIGURES):
        append_row(file, row | {"machine": "A <processor>", "wall_minutes": "1.5", "settings": row["variant"]})
    return file


def page(plan: Plan, rows: Path) -> Page:
    return Page(write_sweep(plan, rows, rows.with_suffix(".html")).read_text(encoding="utf-8"))


def rows_of(found: Page, first: str) -> list[list[str]]:
    return next(table for table in found.tables if table[0][0] == "variant" and table[0][1] == first)


def test_means_and_comparisons_are_those_of_the_rows(plan: Plan, rows: Path) -> None:
    found = page(plan, rows)
    means = {row[0]: row[1:] for row in rows_of(found, "4 labels")}
    assert means["plain"] == ["36.0 ± 5.9", "46.0 ± 5.9", "56.0 ± 5.9"]
    assert means["ablation"] == ["", "30.5 ± 0.7 (n = 2)", ""]
    compared = [row for row in rows_of(found, "labels") if row[0] == "the method"]
    by_budget = {row[1]: row[2:] for row in compared if len(row) == 9}
    assert by_budget["4"][:2] == ["+10.0", "+8.7 to +11.3"] and by_budget["4"][-1] == "wins"
    assert by_budget["8"][-1] == "not resolved"


def test_every_run_is_in_the_table_and_missing_ones_are_named(plan: Plan, rows: Path) -> None:
    found = page(plan, rows)
    everything = found.tables[-1]
    assert len(everything) == 1 + 12 + 8 + 2
    assert "the method: 4 runs" in found.text and "ablation: 2 runs" in found.text
    assert "pool" not in found.text, "nobody misses an optional variant"
    assert "34 min" not in found.text and "33 min 0 s in 22 runs" in found.text


def test_the_page_needs_nothing_else_and_escapes_names(plan: Plan, rows: Path) -> None:
    text = write_sweep(plan, rows, rows.with_suffix(".html")).read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "://" not in text
    assert "A &lt;processor&gt;" in text and "<processor>" not in text
    assert f"{MINUS}10.5" in text


def test_rows_of_different_settings_are_refused(plan: Plan, rows: Path, table: Table) -> None:
    append_row(rows, table({"method": {16: [0.1]}})[0] | {"settings": "others"})
    with pytest.raises(ConfigError, match="the rows of method were made with 2 different settings"):
        write_sweep(plan, rows, rows.with_suffix(".html"))
    assert not rows.with_suffix(".html").exists()
