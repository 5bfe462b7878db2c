# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.data import load_decathlon_datalist
from tests.data.pictures import dataset

from fewlabel.data import read_datalist
from fewlabel.errors import ConfigError, DataError


def _write(root: Path, content: Any, name: str = "datalist.json") -> Path:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def test_paths_are_what_monai_makes_of_them(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    ours = read_datalist(root).training
    theirs = load_decathlon_datalist(str(root / "datalist.json"), base_dir=str(root))
    assert [(i["image"], i["label"]) for i in ours] == [(i["image"], i["label"]) for i in theirs]
    assert ours[0]["video"] == "V0"


def test_list_may_be_absolute_and_lie_elsewhere(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    elsewhere = tmp_path / "lists" / "mine.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text((root / "datalist.json").read_text())
    ours = read_datalist(root, elsewhere)
    assert ours.training == read_datalist(root).training
    alone = read_datalist("", root / "datalist.json")
    assert alone.training == ours.training and alone.root == root


def test_paths_relative_to_the_list_are_found_too(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    ours = read_datalist(tmp_path, "data/datalist.json")
    assert ours.training == read_datalist(root).training


def test_tags_that_name_a_folder_stay_words(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "V0").mkdir()
    assert read_datalist(root).training[0]["video"] == "V0"


def test_test_list_of_the_decathlon_form(tmp_path: Path) -> None:
    root = dataset(tmp_path, test=["images/t1.png"])
    assert read_datalist(root).test == [{"image": str(root / "images/t1.png")}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"training": [', ["not JSON", "line 1", "column"]),
        ("[1, 2]", ['"training"', "make_datalist.py"]),
        ({"validation": []}, ['"training"', "make_datalist.py"]),
        ({"training": []}, ["empty", "make_datalist.py"]),
        ({"training": [{"label": "a.png"}]}, ["item 0", "'training'", '"image"']),
        ({"training": [{"image": ""}, {"image": "a.png"}], "test": 3}, ['"test"', "list"]),
    ],
)
def test_what_is_no_data_list_is_said_in_one_sentence(tmp_path: Path, content: Any, words: list[str]) -> None:
    _write(tmp_path, content)
    with pytest.raises(ConfigError) as error:
        read_datalist(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / "datalist.json") in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_missing_folder_and_list_name_their_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--dataset_dir"):
        read_datalist(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"make_datalist\.py"):
        read_datalist(tmp_path)
    _write(tmp_path, {}, "dataset.json")
    with pytest.raises(ConfigError, match=r"--datalist dataset\.json"):
        read_datalist(tmp_path)


def test_list_without_a_folder_is_not_answered_with_phantoms() -> None:
    with pytest.raises(ConfigError, match="dataset_dir is empty"):
        read_datalist("", "mine.json")


def test_all_inconsistencies_are_reported_at_once(tmp_path: Path) -> None:
    labeled = {"image": "images/u.png", "label": "labels/u.png"}
    disguised = {"image": "images/v.png", "target": "labels/f00.png"}
    again = {"image": "images/f00.png"}
    root = dataset(tmp_path, unlabeled=[labeled, disguised, again], test=[{"image": "images/f01.png"}])
    content = json.loads((root / "datalist.json").read_text())
    content["training"].append({"image": "./images/f02.png"})
    content["validation"].append({"image": "images/new.png"})
    _write(root, content)
    with pytest.raises(DataError) as error:
        read_datalist(root)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 6
    assert "u.png: an unlabeled item must not carry the label in 'label'" in text
    assert "v.png: an unlabeled item must not carry the label in 'target'" in text
    assert "images/f00.png is in 'training' and in 'unlabeled'" in text
    assert "images/f01.png is in 'training' and in 'test'" in text
    assert "images/f02.png is twice in 'training'" in text
    assert "new.png in 'validation' has no 'label'" in text


@pytest.mark.parametrize(
    "name",
    ["mms_endovis15", "psm_nuclei_dsb2018", "psm_nuclei_tnbc", "sks_busi", "lrc_han_openkbp", "lrc_abdomen_curvas"],
)
def test_real_lists_are_accepted(real_data: Any, name: str) -> None:
    source = read_datalist(real_data(name), "dataset.json")
    assert source.training and source.validation
    assert all(Path(item["image"]).is_file() for item in (*source.training, *source.validation))
