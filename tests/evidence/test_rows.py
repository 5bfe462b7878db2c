# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fewlabel.errors import ConfigError
from fewlabel.evidence import Row, Run, append_row, read_rows
from fewlabel.evidence.rows import require_same_settings, run_of


def row(variant: str, draw: int, **more: str) -> Row:
    return {"variant": variant, "label_budget": "8", "fold": "A", "draw": str(draw)} | more


def test_rows_come_back_and_new_columns_are_added(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.csv"
    append_row(file, row("a", 0, dice="0.5"))
    append_row(file, row("a", 1, dice="0.6", iou="0.4"))
    assert read_rows(file) == [row("a", 0, dice="0.5", iou=""), row("a", 1, dice="0.6", iou="0.4")]
    assert run_of(read_rows(file)[1]) == Run("a", 8, "A", 1)
    assert [path.name for path in file.parent.iterdir()] == ["rows.csv"]


def test_files_of_several_machines_merge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append_row(tmp_path / "r1.csv", row("a", 0, dice="0.5"))
    append_row(tmp_path / "r2.csv", row("a", 0, dice="0.7"))
    append_row(tmp_path / "r2.csv", row("b", 0, dice="0.6"))
    with caplog.at_level(logging.WARNING):
        merged = read_rows([tmp_path / "r1.csv", str(tmp_path / "r*.csv"), tmp_path / "absent.csv"])
    assert [found["dice"] for found in merged] == ["0.5", "0.6"]
    assert "repeats the run" in caplog.text


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("variant,label_budget\na,8\n")
    with pytest.raises(ConfigError, match="no column 'fold': it is not the table of a sweep"):
        read_rows(tmp_path / "x.csv")


def test_rows_of_different_settings_are_kept_apart() -> None:
    require_same_settings(
        [row("a", 0, settings="x"), row("a", 1, settings="x"), row("b", 0, settings="y"), row("a", 2)]
    )
    with pytest.raises(ConfigError, match=r"the rows of a were made with 2 different settings \(x, y in the column"):
        require_same_settings([row("a", 0, settings="x"), row("a", 1, settings="y")])


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "absent.csv") == []
