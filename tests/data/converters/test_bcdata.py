# SPDX-License-Identifier: Apache-2.0
"""BCData on fabricated samples of its exact layout; h5py writes and reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabel.data import read_datalist, without_labels
from fewlabel.data.converters import convert_bcdata
from fewlabel.errors import ConfigError, DataError

CELLS = {"positive": np.array([(3, 7), (20, 1)]), "negative": np.array([(3, 7), (31, 23)])}


def write_points(path: Path, points: Any, name: str = "coordinates") -> None:
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=points)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Tiles 0 and 10 for training, 0 for validation and for test, as the archive unpacks, 24 rows of 32 pixels."""
    root = tmp_path / "download" / "BCData"
    for split, names in {"train": (0, 10), "validation": (0,), "test": (0,)}.items():
        for name in names:
            write_image(root / "images" / split / f"{name}.png")
            for kind, points in CELLS.items():
                write_points(root / "annotations" / split / kind / f"{name}.h5", points)
    return root


def test_cells_are_where_the_source_has_them(source: Path, tmp_path: Path) -> None:
    found = convert_bcdata(source.parent, tmp_path / "out")
    assert found == {
        "training": 2, "validation": 1, "test": 1, "positive": 8, "negative": 8, "moved": 4, "without_file": 0,
    }  # fmt: skip
    lists = read_datalist(tmp_path / "out")
    for item in [*lists.training, *lists.validation, *lists.test]:
        label, classes = (np.asarray(Image.open(item[key])) for key in ("label", "class_label"))
        assert (label.dtype, classes.dtype) == (np.uint16, np.uint8) and label.shape == classes.shape == (24, 32)
        assert np.array_equal(label > 0, classes > 0) and sorted(label[label > 0]) == [1, 2, 3, 4]
        assert (label[7, 3], label[1, 20], label[23, 31]) == (1, 2, 4), "coordinates are x, y"
        assert (classes[7, 3], classes[1, 20], classes[23, 31]) == (1, 1, 2)
        row, column = np.argwhere(label == 3)[0]
        assert abs(row - 7) + abs(column - 3) == 1, "the second cell of a pixel goes to the next"
        stem = Path(item["image"]).stem
        rows = (tmp_path / "out" / "points" / f"{stem}.csv").read_text().splitlines()
        assert rows == ["x,y,class", "3,7,positive", "20,1,positive", "3,7,negative", "31,23,negative"]
        assert set(without_labels(item)) == {"image"}
    assert [Path(i["image"]).name for i in lists.training] == ["train_0.png", "train_10.png"]


def test_manifest_names_every_file(source: Path, tmp_path: Path) -> None:
    (source / "annotations" / "train" / "negative" / "10.h5").unlink()
    write_points(source / "annotations" / "test" / "positive" / "0.h5", np.zeros((0,)))
    found = convert_bcdata(source, tmp_path / "out")
    assert (found["positive"], found["negative"], found["without_file"]) == (6, 6, 1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["sources"]) == 4 + 7 and all(len(s["sha256"]) == 64 for s in manifest["sources"])
    assert manifest["images"]["train_10"]["without_file"] == ["negative"]


def test_problems_are_reported_at_once(source: Path, tmp_path: Path) -> None:
    folder = source / "annotations" / "train"
    write_points(folder / "positive" / "0.h5", np.array([(3, 40)]))
    (folder / "positive" / "10.h5").write_bytes(b"not HDF5")
    write_points(source / "annotations" / "test" / "negative" / "0.h5", CELLS["negative"], "cells")
    write_points(source / "annotations" / "validation" / "negative" / "0.h5", np.zeros((2, 3)))
    with pytest.raises(DataError) as error:
        convert_bcdata(source, tmp_path / "out")
    told = error.value.problems
    assert len(told) == 4 and "1 points lie outside of the image, the first at x 3, y 40" in told[0]
    assert "shape (2, 3), expected (N, 2)" in told[2] and sum("no readable data set" in text for text in told) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["download"]


def test_files_without_a_partner(source: Path, tmp_path: Path) -> None:
    write_image(source / "images" / "train" / "7.png")
    write_points(source / "annotations" / "test" / "negative" / "9.h5", CELLS["negative"])
    with pytest.raises(DataError) as error:
        convert_bcdata(source, tmp_path / "out")
    assert error.value.problems == [
        "images/train/7.png has neither positive nor negative annotations",
        "annotations/test/negative/9.h5 belongs to no image of that split",
    ]


def test_folders_that_do_not_fit(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folders 'images' and 'annotations'"):
        convert_bcdata(source / "images", tmp_path / "out")
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        convert_bcdata(source, source)


def test_missing_h5py_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="pip install h5py"):
        convert_bcdata(tmp_path, tmp_path / "out")
