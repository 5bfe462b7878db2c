# SPDX-License-Identifier: Apache-2.0
"""What a bundle publishes is what its rows say: the tables of its README are made anew and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewlabel.evidence import markdown, read_plan, read_rows

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = sorted(ROOT.glob("bundles/*/docs/evidence*.csv"))


def test_something_is_published() -> None:
    assert PUBLISHED


@pytest.mark.parametrize("rows", PUBLISHED, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_tables_are_those_of_the_rows(rows: Path) -> None:
    plan = read_plan(rows.parents[1], folds=[])
    readme = (rows.parent / "README.md").read_text(encoding="utf-8")
    shown = readme.partition(f"<!-- {rows.stem}:begin -->\n")[2].partition(f"<!-- {rows.stem}:end -->")[0]
    assert shown.strip() == markdown(plan, read_rows([rows])).strip(), "run tools/label_budget.py table --readme"
