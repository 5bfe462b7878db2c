# SPDX-License-Identifier: Apache-2.0
"""A sweep of a bundle, tiny but whole: pilot, runs in processes, rows, resuming, tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.bundles.tiny import BUNDLE, TINY, dataset
from tools import label_budget

from fewlabel.evidence import Plan, Row, Run, Sweep, append_row, read_plan, read_rows
from fewlabel.evidence.forecast import epochs_of, known_minutes, pilot_minutes


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the bundle whose light profile is the smallest."""
    target = tmp_path / "bundles" / BUNDLE.name
    shutil.copytree(BUNDLE, target, ignore=shutil.ignore_patterns("models", "output"))
    light = target / "configs" / "light.json"
    light.write_text(json.dumps(json.loads(light.read_text()) | TINY | {"max_epochs": 3}))
    return target


def a_plan(tiny: Path, data: Path, **changes: object) -> Plan:
    return read_plan(tiny, data, budgets=[4], folds=["training"], draws=[0], **changes)


def test_a_sweep_runs_resumes_and_shows(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(label_budget, "ROOT", tmp_path)
    data, file = dataset(tmp_path / "data", validation=6), tmp_path / "rows.csv"
    given = {"csv_file": str(file), "dataset_dir": str(data), "budgets": 4, "folds": "training", "draws": 0}
    label_budget.run(**given, variants="supervised", dry_run=True)
    assert "1 runs to go, about 0.0 h" in capsys.readouterr().out
    assert not file.exists()

    label_budget.run(**given, variants=("supervised", "as_released"), jobs=2)
    rows = {row["variant"]: row for row in read_rows(file)}
    assert set(rows) == {"supervised", "as_released"}
    row = rows["as_released"]
    assert (row["label_budget"], row["fold"], row["draw"], row["list"]) == ("4", "training", "0", "validation")
    assert row["cases"] == "8" and row["steps"] == "6" and row["machine"]
    assert float(row["wall_minutes"]) > float(row["training_minutes"]) > 0
    assert rows["supervised"]["settings"] != row["settings"]
    folder = tiny / "output" / "sweep" / "as_released-4-training-0"
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["mean_dice"] == pytest.approx(
        float(row["mean_dice"]), abs=5e-5
    )
    assert json.loads((folder / "run.json").read_text())["keys"]["max_epochs"] == 3
    assert "$ python -m monai.bundle run training" in (folder / "log.txt").read_text()

    before = file.read_text()
    label_budget.run(**given, variants=("supervised", "as_released"))
    assert file.read_text() == before, "nothing is run twice"
    assert "| MMS, as released |" in capsys.readouterr().out


def test_a_failing_run_is_named_and_left_for_the_next_sweep(tiny: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", validation=6)
    keys = {"dataset_dir": str(data), "datalist": "datalist.json", "learning_rate": "fast"}
    sweep = Sweep(a_plan(tiny, data), tmp_path / "rows.csv", tmp_path / "runs", keys, ["supervised"])
    sweep.minutes["supervised"] = 1.0
    assert sweep.run() == [Run("supervised", 4, "training", 0)]
    assert not (tmp_path / "rows.csv").exists()
    assert "learning_rate" in (tmp_path / "runs" / "supervised-4-training-0" / "log.txt").read_text()
    again = Sweep(a_plan(tiny, data), tmp_path / "rows.csv", tmp_path / "runs", keys, ["supervised"])
    assert again.todo == [Run("supervised", 4, "training", 0)]


def row(variant: str, minutes: str) -> Row:
    return {"variant": variant, "label_budget": "4", "fold": "training", "draw": "0", "wall_minutes": minutes}


def test_no_run_starts_that_would_end_too_late(tiny: Path, tmp_path: Path) -> None:
    plan = a_plan(tiny, tmp_path)
    append_row(tmp_path / "other.csv", row("mms", "30") | {"draw": "7"})
    sweep = Sweep(plan, tmp_path / "rows.csv", tmp_path, variants=["mms"], max_minutes=20, others=[tmp_path / "o*.csv"])
    assert sweep.hours() == pytest.approx(0.5)
    assert sweep.run() == []
    assert sweep.todo == [Run("mms", 4, "training", 0)]


def test_runs_of_other_machines_are_not_repeated(tiny: Path, tmp_path: Path) -> None:
    append_row(tmp_path / "other.csv", row("mms", "1"))
    plan = a_plan(tiny, tmp_path)
    assert Sweep(plan, tmp_path / "rows.csv", tmp_path, variants=["mms"], others=[tmp_path / "other.csv"]).todo == []


def test_forecast_counts_caches_once(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,seconds\n1,10\n2,4\n")
    (tmp_path / "wall.json").write_text('{"seconds": 20}')
    assert pilot_minutes(tmp_path, epochs=10) == pytest.approx((20 + 8 * 4) / 60)
    assert known_minutes([row("a", "1"), row("a", "3"), row("b", "")]) == {"a": 2.0}


def test_epochs_are_those_of_the_last_file_or_the_given_key(bundle: Path) -> None:
    assert epochs_of(bundle, ["train", "light"], {}) == 5
    assert epochs_of(bundle, ["train", "twist", "light"], {"max_epochs": 7}) == 7
