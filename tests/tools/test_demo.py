# SPDX-License-Identifier: Apache-2.0
"""The table and the sheet of pictures of the demo, from an output folder made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tools import demo

RED, BLUE = (200, 0, 0), (0, 0, 200)
COLORS = {"method": RED, "baseline": BLUE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Method and baseline with other figures, and 16 overlays each, red and blue, ever brighter in green."""
    for number, name in enumerate(demo.VARIANTS):
        predictions = tmp_path / name / "predictions" / "video"
        predictions.mkdir(parents=True)
        metrics = {"mean_dice": 0.5 + number / 8, "mae_mask": 0.1}
        (tmp_path / name / "metrics.json").write_text(json.dumps({"list": "test", "cases": 16, "metrics": metrics}))
        (tmp_path / name / "history.csv").write_text("epoch,loss,seconds\n1,0.5,20.4\n2,0.4,20.3\n")
        for i in range(16):
            picture = Image.new("RGB", (80, 60), (COLORS[name][0], 10 * i, COLORS[name][2]))
            picture.save(predictions / f"f{i:02d}_overlay.png")
            picture.save(predictions / f"f{i:02d}_mask.png")
    return tmp_path


def test_figures_are_those_of_the_files(folder: Path) -> None:
    method, baseline = demo._figures(folder)
    shared = {"list": "test", "cases": "16", "mae_mask": "0.1000", "training_seconds": "41"}
    assert method == shared | {"variant": "method", "mean_dice": "0.5000"}
    assert baseline == shared | {"variant": "baseline", "mean_dice": "0.6250"}


def test_table_keeps_the_order_of_the_metrics(folder: Path) -> None:
    lines = [line.split() for line in demo._table(demo._figures(folder)).splitlines()]
    assert lines == [
        ["16", "test", "cases", "method", "baseline"],
        ["mean_dice", "0.5000", "0.6250"],
        ["mae_mask", "0.1000", "0.1000"],
        ["training_seconds", "41", "41"],
    ]


def cells(sheet: Path, columns: int, rows: int) -> list[list[tuple[int, ...]]]:
    """The colors in the middle of the upper part of each cell."""
    pixels = np.asarray(Image.open(sheet))
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    return [[tuple(pixels[r * height + 20, c * width + 40]) for c in range(columns)] for r in range(rows)]


def test_same_frames_stand_one_above_the_other(folder: Path) -> None:
    """Eight frames from the first to the last, in rows of four: method, baseline, method, baseline."""
    found = cells(demo._picture(folder), columns=4, rows=4)
    green = [[cell[1] for cell in row] for row in found]
    assert green[0] == green[1] and green[2] == green[3]
    assert green[0] + green[2] == sorted(green[0] + green[2]) and len({*green[0], *green[2]}) == 8
    assert (green[0][0], green[2][-1]) == (0, 150)
    assert [row[0][0] > row[0][2] for row in found] == [True, False, True, False]


def test_fewer_frames_than_places(folder: Path) -> None:
    for name in demo.VARIANTS:
        for i in range(2, 16):
            (folder / name / "predictions" / "video" / f"f{i:02d}_overlay.png").unlink()
    found = cells(demo._picture(folder), columns=2, rows=2)
    assert [[cell[1] for cell in row] for row in found] == [[0, 10], [0, 10]]


def test_unfinished_folder_says_which_file_is_missing(folder: Path) -> None:
    (folder / "baseline" / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"baseline.metrics\.json"):
        demo._figures(folder)
