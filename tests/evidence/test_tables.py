# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fewlabel.errors import ConfigError
from fewlabel.evidence import Plan, Row, draw_curve, insert, markdown

Table = Callable[[dict[str, dict[int, list[float]]]], list[Row]]
FIGURES = {
    "supervised": {4: [0.30, 0.32, 0.40, 0.42], 8: [0.40, 0.42, 0.50, 0.52], 16: [0.50, 0.52, 0.60, 0.62]},
    "method": {4: [0.40, 0.43, 0.50, 0.51], 8: [0.42, 0.38, 0.54, 0.50]},
    "ablation": {8: [0.30, 0.31]},
}


def test_tables_hold_means_spreads_differences_and_verdicts(plan: Plan, table: Table) -> None:
    text = markdown(plan, table(FIGURES))
    lines = text.splitlines()
    assert lines[0] == "| mean_dice, % (mean ± sd) | 4 labels | 8 labels | 16 labels |"
    assert lines[2] == "| plain | 36.0 ± 5.9 | 46.0 ± 5.9 | 56.0 ± 5.9 |"
    assert lines[3].startswith("| the method | 46.0 ± 5.4 |") and lines[3].endswith("|  |")
    assert "30.5 ± 0.7 (n = 2)" in lines[4]
    assert not any("pool" in line for line in lines)
    compared = [line for line in lines if line.startswith("| the method | 4 |")]
    assert compared == [
        "| the method | 4 | +10.0 [+8.7, +11.3] | 0.8 | 4 of 4 | A +10.5, B +9.5 | 2 [1.9, 2.1] | wins |"
    ]
    assert next(line for line in lines if line.startswith("| the method | 8 |")).endswith("| not resolved |")
    assert text.endswith("|\n")


def test_another_metric_can_be_shown(plan: Plan, table: Table) -> None:
    rows = [row | {"mean_iou": "0.5"} for row in table(FIGURES)]
    assert "| plain | 50.0 ± 0.0 |" in markdown(plan, rows, "mean_iou")


def test_further_metrics_have_a_table_of_their_own(plan: Plan, table: Table) -> None:
    rows = [row | {"pixel_f1": str(0.5 + 0.1 * int(row["draw"])), "hd95_mm": "12.5"} for row in table(FIGURES)]
    also = replace(plan, also={"pixel_f1": "pixel F1, %", "hd95_mm": "HD95, mm"})
    lines = markdown(also, rows).splitlines()
    start = lines.index("| mean ± sd | labels | pixel F1, % | HD95, mm |")
    assert lines[start + 2 :][:3] == [f"| plain | {n} | 55.0 ± 5.8 | 12.5 ± 0.0 |" for n in (4, 8, 16)]
    assert "hd95" not in markdown(also, rows, "pixel_f1").lower(), "only the tables of the plan's metric have it"


def test_claims_are_answered_at_every_budget_and_by_their_mean(plan: Plan, table: Table) -> None:
    claims = {"it helps": ("method", "supervised"), "not run": ("method", "pool")}
    lines = markdown(replace(plan, claims=claims), table(FIGURES)).splitlines()
    start = lines.index("| claim | labels | difference, points [95 % interval] | sd | better on | verdict |")
    assert [line for line in lines if "not run" in line] == [], "no rows of one side"
    assert lines[start + 2] == "| it helps | 4 | +10.0 [+8.7, +11.3] | 0.8 | 4 of 4 | wins |"
    at_8 = [0.42 - 0.40, 0.38 - 0.42, 0.54 - 0.50, 0.50 - 0.52]
    both = [(a + b) / 2 for a, b in zip([0.10, 0.11, 0.10, 0.09], at_8, strict=True)]
    mean, sd = statistics.fmean(both), statistics.stdev(both)
    half = 3.182446 * sd / 2  # Student's t, 3 degrees of freedom
    interval = f"[{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"
    expected = f"| it helps | mean | {100 * mean:+.1f} {interval} | {100 * sd:.1f} | 4 of 4 | wins |"
    assert lines[start + 4 : start + 5] == [expected]
    assert "| claim |" not in markdown(plan, table(FIGURES))


def test_text_goes_between_the_markers_of_a_document(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- evidence:begin -->\nold\nlines\n<!-- evidence:end -->\nbelow\n")
    assert insert(page, "evidence", "new\n")
    assert page.read_text() == "above\n<!-- evidence:begin -->\nnew\n<!-- evidence:end -->\nbelow\n"
    assert not insert(page, "evidence", "new")
    with pytest.raises(ConfigError, match="has no lines '<!-- other:begin -->'"):
        insert(page, "other", "x")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curve_is_a_picture(plan: Plan, table: Table, tmp_path: Path, suffix: str) -> None:
    file = draw_curve(plan, table(FIGURES), tmp_path / f"curve.{suffix}")
    if suffix == "svg":
        content = file.read_text()
        assert content.startswith("<?xml") and "ablation" not in content
    else:
        assert min(Image.open(file).size) > 400
