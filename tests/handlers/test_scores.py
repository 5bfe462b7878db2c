# SPDX-License-Identifier: Apache-2.0
"""metrics.json and metrics_per_case.csv say what was found, on which list, for which file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from fewlabel.handlers import ScoresHandler
from fewlabel.metrics import GlobalDice, key_dice


def evaluated(folder: Path, root: Path, passes: int = 1, **options: Any) -> list[dict[str, str]]:
    """Score two cases, one right and one half right, so many times; return the rows of the table."""
    label = torch.zeros(1, 4, 4)
    label[..., :2] = 1
    half = label.clone()
    half[:, :2] = 0
    batches = []
    for name, pred in (("OP1/a.png", label), ("OP1/b.png", half)):
        image = MetaTensor(torch.zeros(3, 4, 4), meta={"filename_or_obj": str(root / "images" / name)})
        batches.append({"image": image, "pred": pred, "label": label})

    def update(engine: Engine, batch: dict[str, Any]) -> list[dict[str, Any]]:
        engine.state.batch = [batch]
        return [batch]

    engine = Engine(update)
    engine.state.metric_details = {}
    key_dice().attach(engine, "mean_dice")
    ScoresHandler(folder, "test", {"threshold": 0.5}, **options).attach(engine)
    engine.run(batches * passes)
    with (folder / "metrics_per_case.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_mean_and_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = evaluated(tmp_path / "out", tmp_path, data_root=tmp_path)
    assert [row["case"] for row in rows] == ["images/OP1/a.png", "images/OP1/b.png"]
    assert [float(row["mean_dice"]) for row in rows] == pytest.approx([1.0, 2 / 3], abs=1e-5)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["list"] == "test" and found["cases"] == 2 and found["settings"] == {"threshold": 0.5}
    assert found["metrics"]["mean_dice"] == pytest.approx(5 / 6, abs=1e-5)
    assert "mean_dice" in capsys.readouterr().out


def test_cases_that_several_processes_saw_stand_there_once(tmp_path: Path) -> None:
    assert evaluated(tmp_path / "twice", tmp_path, passes=2) == evaluated(tmp_path / "once", tmp_path)
    assert json.loads((tmp_path / "twice" / "metrics.json").read_text())["cases"] == 2


@pytest.mark.parametrize("root", [None, "", "elsewhere"])
def test_without_a_root_the_shared_folder_is_left_out(tmp_path: Path, root: str | None) -> None:
    rows = evaluated(tmp_path / "out", tmp_path, data_root=root)
    assert [row["case"] for row in rows] == ["a.png", "b.png"]


def test_columns_of_a_metric_with_several_values_can_be_named(tmp_path: Path) -> None:
    handler = ScoresHandler(tmp_path, "test", columns={"global_dice": ["tp", "fp", "fn"]})
    counts = GlobalDice()
    counts(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert handler._case_columns({"global_dice": counts.get_buffer()}) == {
        "global_dice": {"tp": ["4"], "fp": ["0"], "fn": ["0"]}
    }
