# SPDX-License-Identifier: Apache-2.0
"""The command that makes region maps before a training and tells what they can reach."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.data.volumes import SETTINGS, draw
from tests.guards._tree import ROOT
from tools.superpixels import ceiling, precompute

from fewlabel.errors import ConfigError


def test_makes_the_maps_of_training_and_unlabeled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cache = draw(tmp_path / "data", 2, unlabeled=1), tmp_path / "cache"
    precompute(str(data), folder=str(cache), **SETTINGS)
    assert "3 images: 3 region maps made" in capsys.readouterr().out
    assert len(list(cache.rglob("*.labels"))) == 3
    config = tmp_path / "train.json"
    add = {"_target_": "fewlabel.transforms.AddRegionsd", "folder": str(cache), **SETTINGS}
    read = ["$fewlabel.data.reading(['image'])[0]", "$fewlabel.data.reading(['image'])[1]"]
    config.write_text(json.dumps({"imports": ["$import fewlabel"], "pretrain": {"steps": [*read, add]}}))
    precompute(str(data), config_file=str(config), transform="pretrain::steps")
    assert "0 region maps made, 3 were there" in capsys.readouterr().out


def test_command_line_gives_the_same_files(tmp_path: Path) -> None:
    data, cache = draw(tmp_path / "data", 1), tmp_path / "cache"
    precompute(str(data), folder=str(cache), **SETTINGS)
    line = [sys.executable, str(ROOT / "tools" / "superpixels.py"), "precompute", "--dataset_dir", str(data)]
    line += ["--folder", str(cache), "--min_size_mm3", "60", "--window", "[-160,240]", "--body", "{threshold: -300}"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "1 images: 0 region maps made, 1 were there" in done.stdout


def test_ceiling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file = draw(tmp_path / "data", 3), tmp_path / "ceiling.csv"
    ceiling(str(data), str(file), min_sizes=(60, 600), sigmas_mm=0, limit=2, folder=str(tmp_path / "c"), **settings())
    shown = capsys.readouterr().out
    assert str(file) in shown and "| small organ | other organ |" in shown
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["kind"] for row in rows] == ["felzenszwalb", "grid", "random"] * 2
    assert {(row["data"], row["images"], row["window"], row["body"]) for row in rows} == {
        ("data", "2", "-160 to 240", "threshold=-300")
    }
    assert all(0 < float(row["mean"]) <= 1 for row in rows)
    superpixels, grid = (float(row["mean"]) for row in rows[:2])
    assert superpixels > grid  # organs of one brightness


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"regions_dir": "x"}, "--regions_dir is no option of this command, whose regions also take"),
        ({"body": -300}, "body must be a dictionary with a threshold"),
        ({"body": {"threshold": -300, "hole": "keep"}}, "at will components, per_slice, holes, closing_mm"),
        ({"kind": "slic"}, "kind must be one of felzenszwalb"),
    ],
)
def test_a_wrong_setting_is_one_sentence(wrong: dict[str, object], says: str, tmp_path: Path) -> None:
    data = draw(tmp_path / "data", 1)
    with pytest.raises(ConfigError, match=says):
        precompute(str(data), **wrong)
    wrong = {"kinds" if key == "kind" else key: value for key, value in wrong.items()}
    with pytest.raises(ConfigError, match=says):
        ceiling(str(data), str(tmp_path / "ceiling.csv"), **wrong)


def settings() -> dict[str, object]:
    return {key: value for key, value in SETTINGS.items() if not key.startswith("min_size")}


def test_ceiling_needs_labels_and_their_names(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", 1)
    lists = json.loads((data / "datalist.json").read_text())
    (data / "unnamed.json").write_text(json.dumps({"training": lists["training"]}))
    with pytest.raises(ConfigError, match='no "labels"'):
        ceiling(str(data), "x.csv", "unnamed.json")
    (data / "images.json").write_text(json.dumps({"training": [{"image": "image_0.nii.gz"}]}))
    with pytest.raises(ConfigError, match="no training images with a label"):
        ceiling(str(data), "x.csv", "images.json")
