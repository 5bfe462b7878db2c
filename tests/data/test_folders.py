# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.data.pictures import mask, picture

from fewlabel.data import datalist_from_folders, read_datalist, splits
from fewlabel.errors import ConfigError, DataError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_datalist.py"


def _pairs(root: Path, names: list[str], label_end: str = "") -> tuple[Path, Path]:
    for i, name in enumerate(names):
        picture(root / "images" / f"{name}.jpg", i)
        mask(root / "labels" / f"{name}{label_end}.png")
    return root / "images", root / "labels"


def _images(items: list[dict[str, Any]]) -> list[str]:
    return [item["image"] for item in items]


def test_pairs_by_name_in_subfolders_across_suffixes(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, ["OP1/1", "OP1/2", "OP1/10", "OP2/1"])
    picture(images / "OP2" / "free.tif")
    lists = datalist_from_folders(images, labels, validation=0)
    assert lists["root"] == tmp_path
    assert _images(lists["training"]) == [f"images/{n}.jpg" for n in ("OP1/1", "OP1/2", "OP1/10", "OP2/1")]
    assert all(Path(i["image"]).stem == Path(i["label"]).stem for i in lists["training"])
    assert lists["unlabeled"] == [{"image": "images/OP2/free.tif"}]


def test_suffixes_in_one_folder_and_volumes(tmp_path: Path) -> None:
    for name in ("a_0000.nii.gz", "b_0000.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz", "._a_0000.nii.gz", "notes.csv"):
        (tmp_path / name).touch()
    lists = datalist_from_folders(tmp_path, tmp_path, label_suffix="_seg", image_suffix="_0000", validation=0)
    assert lists["training"] == [
        {"image": "a_0000.nii.gz", "label": "a_seg.nii.gz"},
        {"image": "b_0000.nii.gz", "label": "b_seg.nii.gz"},
    ]
    assert lists["unlabeled"] == []


def test_orphans_duplicates_and_names_without_a_group_are_listed_together(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, ["OP1_1", "OP1_2", "stray"])
    mask(labels / "OP9_9.png")
    picture(images / "OP1_1.png")
    with pytest.raises(DataError) as error:
        datalist_from_folders(images, labels, group_pattern=r"OP\d")
    problems = error.value.problems
    assert len(problems) == 3
    assert "images/OP1_1.jpg, images/OP1_1.png" in problems[0] or "images/OP1_1.png, images/OP1_1.jpg" in problems[0]
    assert "labels/OP9_9.png" in problems[1] and "without an image" in problems[1]
    assert "stray" in problems[2] and "group_pattern" in problems[2]


def test_no_pair_at_all_points_to_the_suffix_keys(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, ["a", "b"], label_end="_mask")
    with pytest.raises(DataError, match="label_suffix"):
        datalist_from_folders(images, labels)
    assert len(datalist_from_folders(images, labels, label_suffix="_mask", validation=0)["training"]) == 2


def test_groups_are_never_split_and_free_images_of_held_groups_left_out(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, [f"OP{i // 4}_{i % 4}" for i in range(24)])
    picture(images / "OP0_free.png")
    picture(images / "OP5_free.png")
    for seed in range(5):
        lists = datalist_from_folders(images, labels, validation=0.3, test=0.1, group_pattern="OP.", seed=seed)
        groups = [{item["video"] for item in lists[name]} for name in ("training", "validation", "test")]
        assert sum(len(group) for group in groups) == len(set.union(*groups)) == 6
        assert len(groups[1]) == 2 and len(groups[2]) == 1  # at least the share, in whole groups
        assert {item["video"] for item in lists["unlabeled"]} == {"OP0", "OP5"} & groups[0]
    named = datalist_from_folders(images, labels, validation="OP3,OP4", test=["OP0"], group_pattern="OP.")
    assert {item["video"] for item in named["validation"]} == {"OP3", "OP4"}
    assert _images(named["unlabeled"]) == ["images/OP5_free.png"]


def test_shares_are_seeded(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, [f"f{i}" for i in range(20)])
    first, same, other = (datalist_from_folders(images, labels, validation=0.25, seed=seed) for seed in (0, 0, 1))
    assert first == same != other
    assert len(first["validation"]) == 5 and len(first["training"]) == 15


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": 1.5}, "share in"),
        ({"validation": "OP7", "group_pattern": "OP."}, "OP7 is no labeled group"),
        ({"validation": "OP0,OP1", "group_pattern": "OP."}, "nothing to train on"),
        ({"validation": "OP0", "test": "OP0", "group_pattern": "OP."}, "in validation and in test"),
        ({"group_pattern": "OP("}, "regular expression"),
        ({"unlabeled": "nowhere"}, "--unlabeled"),
    ],
)
def test_impossible_wishes(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    images, labels = _pairs(tmp_path, ["OP0_1", "OP1_1"])
    with pytest.raises(ConfigError, match=words):
        datalist_from_folders(images, labels, **options)


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no image"):
        datalist_from_folders(tmp_path)


def test_tool_writes_a_list_that_trains_and_overwrites_nothing(tmp_path: Path) -> None:
    images, labels = _pairs(tmp_path, [f"OP{i // 2}_{i % 2}" for i in range(8)])
    picture(tmp_path / "more" / "x.png")
    words = ["--images", images, "--labels", labels, "--unlabeled", tmp_path / "more"]
    command = [sys.executable, TOOL, *words, "--group_pattern", "OP[0-9]", "--validation", "OP3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "6 training, 2 validation, 1 unlabeled" in done.stdout and f"--dataset_dir {tmp_path}" in done.stdout
    chosen = splits(tmp_path, label_budget=2, budget_unit="video")
    assert (len(chosen.labeled), len(chosen.unlabeled), len(chosen.validation)) == (4, 3, 2)

    before = (tmp_path / "datalist.json").read_text()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "is not overwritten" in again.stderr and "Traceback" not in again.stderr
    assert (tmp_path / "datalist.json").read_text() == before
    done = subprocess.run([*command, "--output", tmp_path / "other.json"], capture_output=True, text=True, check=True)
    assert json.loads((tmp_path / "other.json").read_text()) == json.loads(before)


def test_real_folders_give_the_published_list(real_data: Any) -> None:
    root = real_data("mms_endovis15")
    lists = datalist_from_folders(
        root / "rigid/images", root / "rigid/labels", group_pattern="OP.", validation="OP3", root=root
    )
    published = read_datalist(root, "dataset.json")
    for name in ("training", "validation"):
        ours = {(str(root / i["image"]), str(root / i["label"]), i["video"]) for i in lists[name]}
        theirs = {(i["image"], i["label"], i["video"]) for i in getattr(published, name)}
        assert ours <= theirs or theirs <= ours
        assert {i["video"] for i in lists[name]} == {i["video"] for i in getattr(published, name)}
