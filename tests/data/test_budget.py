# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import dataset, mask, picture

from fewlabel.data import Splits, splits
from fewlabel.errors import ConfigError, DataError


def _names(items: Any) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def test_budgets_are_nested_and_the_rest_is_unlabeled(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=20)
    for seed in range(3):
        draws = {n: splits(root, label_budget=n, split_seed=seed) for n in (2, 4, 8, 16)}
        for small, large in ((2, 4), (4, 8), (8, 16)):
            assert _names(draws[small].labeled) == _names(draws[large].labeled)[:small]
        everything = splits(root, split_seed=seed)
        assert _names(draws[16].labeled) == _names(everything.labeled)[:16]
        assert len(everything.labeled) == 20 and everything.unlabeled == ()
        for n, draw in draws.items():
            assert len(draw.labeled) == n and len(draw.unlabeled) == 20 - n
            assert not set(_names(draw.labeled)) & set(_names(draw.unlabeled))
            assert all("label" in item for item in (*draw.labeled, *draw.validation))
            assert all(item.keys() == {"image", "video"} for item in draw.unlabeled)


def test_seeds_draw_differently_and_roughly_evenly(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=10)
    drawn = [name for seed in range(200) for name in _names(splits(root, label_budget=2, split_seed=seed).labeled)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 10 and counts.min() > 15 and counts.max() < 70  # 40 each on average, 5.7 standard deviation


def test_draw_depends_neither_on_place_nor_on_order_nor_on_later_items(tmp_path: Path) -> None:
    root = dataset(tmp_path / "here", training=12)
    first = splits(root, label_budget=6)
    moved = shutil.copytree(root, tmp_path / "there")
    content = json.loads((moved / "datalist.json").read_text())
    content["training"].reverse()
    (moved / "datalist.json").write_text(json.dumps(content))
    assert _names(splits(moved, label_budget=6).labeled) == _names(first.labeled)
    picture(moved / "images" / "late.png")
    mask(moved / "labels" / "late.png")
    content["training"].append({"image": "images/late.png", "label": "labels/late.png", "video": "V9"})
    (moved / "datalist.json").write_text(json.dumps(content))
    assert [n for n in _names(splits(moved).labeled) if n != "late"] == _names(splits(root).labeled)


def test_empty_masks_do_not_count_and_lose_their_labels(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=8, empty=(0, 3, 5))
    draw = splits(root, label_budget=5)
    assert sorted(_names(draw.labeled)) == ["f01", "f02", "f04", "f06", "f07"]
    assert sorted(_names(draw.unlabeled)) == ["f00", "f03", "f05"]
    assert len(splits(root).labeled) == 8
    with pytest.raises(ConfigError, match="label_budget 6 is more than there is: 5 labeled items"):
        splits(root, label_budget=6)


def test_masks_are_read_only_as_far_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dataset(tmp_path, training=20)
    opened = []
    monkeypatch.setattr("fewlabel.data.budget.is_empty_mask", lambda path: opened.append(path))
    splits(root, label_budget=3)
    assert len(opened) == 3
    splits(root)
    assert len(opened) == 3


def test_groups_are_units(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=12, videos=4, empty=(0, 4, 8))  # all of V0 is empty
    draw = splits(root, label_budget=2, budget_unit="video")
    videos = {item["video"] for item in draw.labeled}
    assert len(videos) == 2 and "V0" not in videos and len(draw.labeled) == 6
    assert not videos & {item["video"] for item in draw.unlabeled}
    larger = splits(root, label_budget=3, budget_unit="patient")
    assert larger.labeled[:6] == draw.labeled
    with pytest.raises(ConfigError, match="3 labeled videos"):
        splits(root, label_budget=4, budget_unit="video")
    with pytest.raises(ConfigError, match="group_key"):
        splits(root, label_budget=1, budget_unit="patient", group_key="patient")
    with pytest.raises(ConfigError, match="budget_unit"):
        splits(root, label_budget=1, budget_unit="slice")


def test_a_budget_of_0_keeps_no_label_and_needs_none(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    draw = splits(root, label_budget=0, needs_labels=False)
    assert draw.labeled == () and len(draw.unlabeled) == len(splits(root).labeled)
    assert all("label" not in item for item in draw.unlabeled) and len(draw.held_back) >= len(draw.unlabeled)
    content = json.loads((root / "datalist.json").read_text())
    for item in content["training"]:
        del item["label"]
    (root / "datalist.json").write_text(json.dumps(content))
    assert len(splits(root, label_budget="0", needs_labels=False).unlabeled) == len(draw.unlabeled)


@pytest.mark.parametrize("budget", [-1, True, 2.5, "many", [2]])
def test_impossible_budgets(tmp_path: Path, budget: Any) -> None:
    with pytest.raises(ConfigError, match="label_budget"):
        splits(dataset(tmp_path), label_budget=budget)


def test_unlabeled_list_tags_and_training_items_without_a_label(tmp_path: Path) -> None:
    extra = {"image": "images/u.png", "class_label": 2}
    root = dataset(tmp_path, unlabeled=[extra])
    content = json.loads((root / "datalist.json").read_text())
    del content["training"][0]["label"]
    content["training"][1].update(soft_mask="labels/f01.png", stain="pink", label_note="checked")
    (root / "datalist.json").write_text(json.dumps(content))
    draw = splits(root, label_budget=1, split_seed=0)
    by_name = {Path(item["image"]).stem: item for item in draw.unlabeled}
    assert by_name.keys() == {f"f{i:02d}" for i in range(8)} - set(_names(draw.labeled)) | {"u"}
    assert by_name["u"]["class_label"] == 2 and "f00" in by_name
    assert by_name["f01"].keys() == {"image", "video", "stain", "label_note"}


def test_held_out_groups_become_the_validation_list(tmp_path: Path) -> None:
    free = [{"image": "images/u0.png", "video": "V0"}, {"image": "images/u1.png", "video": "V1"}]
    root = dataset(tmp_path, training=8, validation=2, videos=2, unlabeled=free)
    fold = splits(root, hold_out="V0")
    assert {item["video"] for item in fold.validation} == {"V0"} and len(fold.validation) == 4
    assert {item["video"] for item in fold.labeled} == {"V1", "VAL"} and len(fold.labeled) == 6
    assert _names(fold.unlabeled) == ["u1"]
    assert splits(root, hold_out=["VAL"]).validation == splits(root).validation
    assert len(splits(root, hold_out="V0,VAL").validation) == 6
    assert fold.fingerprint() != splits(root).fingerprint()
    with pytest.raises(ConfigError, match=r"V7 is no video .* V0, V1, VAL"):
        splits(root, hold_out=("V0", "V7"))
    with pytest.raises(ConfigError, match="train on"):
        splits(root, hold_out=["V0", "V1", "VAL"])


def test_group_on_both_sides_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path)
    splits(root)
    assert not caplog.records
    (root / "datalist.json").write_text((root / "datalist.json").read_text().replace("VAL", "V1"))
    splits(root)
    assert "V1 is in training and in validation" in caplog.text


def test_a_lab_with_five_labels_may_have_no_validation_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path)
    content = json.loads((root / "datalist.json").read_text())
    (root / "datalist.json").write_text(json.dumps({**content, "validation": []}))
    assert splits(root).validation == () and "without validation" in caplog.text


def test_lists_that_cannot_train(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    content = json.loads((root / "datalist.json").read_text())
    bare = [{"image": item["image"]} for item in content["training"]]
    (root / "datalist.json").write_text(json.dumps({**content, "training": bare}))
    with pytest.raises(ConfigError, match="'label'"):
        splits(root)


def test_the_test_list_changes_nothing(tmp_path: Path) -> None:
    before = splits(dataset(tmp_path / "a"), label_budget=3)
    after = splits(
        dataset(tmp_path / "b", test=[{"image": "images/t.png", "label": "labels/poison.png"}]), label_budget=3
    )
    assert before.fingerprint() == after.fingerprint()


def test_record_is_portable_and_complete(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    draw = splits(root, label_budget=2, split_seed=3)
    path = draw.save(tmp_path / "run" / "split.json")
    record = json.loads(path.read_text())
    assert record["label_budget"] == 2 and record["split_seed"] == 3 and record["source"] == "datalist.json"
    assert record["fingerprint"] == draw.fingerprint()
    assert str(tmp_path) not in path.read_text()
    assert record["labeled"][0]["image"] == f"images/{_names(draw.labeled)[0]}.png"
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]
    assert (
        splits(shutil.copytree(root, tmp_path / "copy"), label_budget=2, split_seed=3).fingerprint()
        == draw.fingerprint()
    )
    assert splits(root, label_budget=2, split_seed=4).fingerprint() != draw.fingerprint()


def test_phantoms_when_no_data_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabel.data import phantoms

    monkeypatch.setattr(phantoms, "folder", lambda name, seed: dataset(tmp_path / f"{name}{seed}"), raising=False)
    draw = splits(label_budget=2, phantom="endoscopy", phantom_seed=5)
    assert draw.source == "phantoms/endoscopy/5" and draw.root == tmp_path / "endoscopy5"
    assert isinstance(draw, Splits) and len(draw.labeled) == 2


def test_unreadable_mask_is_left_to_the_check(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=2)
    for name in ("f00", "f01"):
        (root / "labels" / f"{name}.png").write_bytes(b"no picture")
    assert len(splits(root, label_budget=2).labeled) == 2


def test_several_label_files_count_as_one_mask(tmp_path: Path) -> None:
    root = dataset(tmp_path, training=2)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(root / "labels" / "zero.png")
    content = json.loads((root / "datalist.json").read_text())
    content["training"][0]["label"] = ["labels/zero.png", "labels/f00.png"]
    content["training"][1]["label"] = ["labels/zero.png", "labels/zero.png"]
    (root / "datalist.json").write_text(json.dumps(content))
    assert _names(splits(root, label_budget=1).labeled) == ["f00"]


def test_real_frames(real_data: Any) -> None:
    root = real_data("mms_endovis15")
    draw = splits(root, "dataset.json", label_budget=8)
    assert (len(draw.labeled), len(draw.unlabeled), len(draw.validation)) == (8, 72, 40)
    assert {item["video"] for item in draw.validation} == {"OP3"}
    fold = splits(root, "dataset.json", label_budget=4, hold_out="OP1")
    assert {item["video"] for item in (*fold.labeled, *fold.unlabeled)} == {"OP2", "OP3"} and len(fold.validation) == 40
    pool = splits(root, "dataset_robotic_pool.json", label_budget=8)
    assert len(pool.unlabeled) == 72 + 37 and _names(pool.labeled) == _names(draw.labeled)


def test_inconsistent_list_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="carry the label"):
        splits(dataset(tmp_path, unlabeled=[{"image": "images/u.png", "label": "labels/f01.png"}]))
