# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewlabel.data import find_labels, without_labels


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label", "x.png"),
        ("label", 3),
        ("Mask_left", "x.tif"),
        ("ground_truth", ["x.nii.gz", "y.nii.gz"]),
        ("seg", "x.nii"),
        ("soft_mask", "x.npy"),
        ("label_folder", "labels/x"),
        ("gt", Path("x.png")),
        ("annotation", np.zeros((2, 2))),
        ("target", "known.png"),
        ("extras", {"deep": ["known.png"]}),
    ],
)
def test_labels_are_stripped_and_found(key: str, value: object) -> None:
    item = {"image": "a.png", key: value, "video": "OP1"}
    assert without_labels(item, known={"known.png"}) == {"image": "a.png", "video": "OP1"}
    assert len(find_labels([item], known=["known.png"])) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_label", 2),
        ("has_lesion", True),
        ("class_label_name", "benign"),
        ("labels_present", [1, 2, 7]),
        ("segment", "b.png"),
        ("stain", "purple"),
        ("label_grade", "grade 2.5"),
    ],
)
def test_tags_stay(key: str, value: object) -> None:
    item = {"image": "a.png", key: value}
    assert without_labels(item) == item
    assert find_labels([item]) == []


def test_image_key_that_sounds_like_a_label_stays() -> None:
    item = {"masked_image": "a.png"}
    assert without_labels(item, image_key="masked_image") == item
    assert find_labels([item], image_key="masked_image") == []


def test_label_file_that_poses_as_an_image_is_found_through_a_link(tmp_path: Path) -> None:
    label = tmp_path / "label.png"
    label.touch()
    link = tmp_path / "innocent.png"
    link.symlink_to(label)
    assert "innocent.png" in find_labels([{"image": str(link)}], known=[str(label)])[0]


def test_the_original_item_is_untouched() -> None:
    item = {"image": "a.png", "label": "b.png"}
    without_labels(item)
    assert item["label"] == "b.png"
