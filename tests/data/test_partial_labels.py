# SPDX-License-Identifier: Apache-2.0
"""The list ``partial_label``: read, checked, drawn into the split or held back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.pictures import dataset, mask, picture

from fewlabel.data import check, read_datalist, splits
from fewlabel.errors import DataError


def with_partial(root: Path, **changes: Any) -> Path:
    """Six training and two validation items, and two partly labeled ones of groups V0 and P."""
    items = []
    for n, (group, value) in enumerate((("V0", 1), ("P", 3))):
        picture(root / "images" / f"p{n}.png", seed=50 + n)
        mask(root / "labels" / f"p{n}.png", value=value)
        names = {"image": f"images/p{n}.png", "label": f"labels/p{n}.png"}
        items.append({**names, "video": group, "labels_present": [value], "site": "B"} | changes)
    return dataset(root, training=6, partial_label=items)


def stems(items: Any) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def test_without_use_they_are_unlabeled_and_their_labels_held_back(tmp_path: Path) -> None:
    split = splits(with_partial(tmp_path), label_budget=2)
    assert stems(split.unlabeled)[-2:] == ["p0", "p1"] and len(split.labeled) == 2
    assert all(item.keys() == {"image", "video", "site"} for item in split.unlabeled[-2:])
    held = {Path(file).stem: why for file, why in split.held_back.items()}
    assert "use_partial_labels is false" in held["p0"] and len(held) == 4 + 2


def test_with_use_they_are_labeled_beyond_the_budget(tmp_path: Path) -> None:
    root = with_partial(tmp_path)
    off, on = splits(root, label_budget=2), splits(root, label_budget=2, use_partial_labels=True)
    assert stems(on.labeled) == [*stems(off.labeled), "p0", "p1"]
    assert [item["labels_present"] for item in on.labeled[-2:]] == [[1], [3]]
    assert not {"p0", "p1"} & {*stems(on.unlabeled), *stems(on.validation)}
    assert not any(Path(file).stem in ("p0", "p1") for file in on.held_back)
    assert on.fingerprint() != off.fingerprint()
    only = splits(root, label_budget=0, use_partial_labels=True)
    assert stems(only.labeled) == ["p0", "p1"] and len(only.unlabeled) == 6


def test_without_the_list_nothing_changes(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    off, on = (splits(root, label_budget=3, use_partial_labels=use) for use in (False, True))
    assert off.fingerprint() == on.fingerprint()


@pytest.mark.parametrize("use", [False, True])
def test_a_held_out_group_takes_its_partly_labeled_items_along(tmp_path: Path, use: bool) -> None:
    split = splits(with_partial(tmp_path), hold_out="V0", use_partial_labels=use)
    everywhere = stems((*split.labeled, *split.unlabeled, *split.validation))
    assert "p0" not in everywhere and everywhere.count("p1") == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"label": None}, "'partial_label' has no 'label'"),
        ({"labels_present": None}, "labels_present None; give the"),
        ({"labels_present": []}, r"labels_present \[\]"),
        ({"labels_present": [0, 1]}, r"labels_present \[0, 1\]"),
        ({"labels_present": ["1"]}, r"labels_present \['1'\]"),
        ({"image": "images/f00.png"}, "is in 'training' and in 'partial_label'"),
    ],
)
def test_bad_lists_are_one_sentence(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_datalist(with_partial(tmp_path, **changes))


def test_an_unlabeled_item_must_not_point_to_a_partial_label(tmp_path: Path) -> None:
    root = with_partial(tmp_path)
    content = json.loads((root / "datalist.json").read_text())
    picture(root / "images" / "u.png")
    content["unlabeled"] = [{"image": "images/u.png", "other": "labels/p0.png"}]
    (root / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="must not carry the label in 'other'"):
        read_datalist(root)


def test_the_check_compares_masks_with_what_is_said_to_be_present(tmp_path: Path) -> None:
    root = with_partial(tmp_path, labels_present=[1, 2])
    check(splits(root), progress=False)
    with pytest.raises(DataError, match=r"p1.png: mask values 3 are not in its labels_present \[1, 2\]"):
        check(splits(root, use_partial_labels=True), progress=False)


def test_the_check_reads_what_training_items_say_too(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    content = json.loads((root / "datalist.json").read_text())
    content["training"][0]["labels_present"] = 1
    (root / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"f00.png: its labels_present 1 is no list of labels"):
        check(splits(root), progress=False)
