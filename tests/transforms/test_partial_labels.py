# SPDX-License-Identifier: Apache-2.0
"""Which classes a label tells apart, and flips that know left from right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from fewlabel.data import StreamLoader
from fewlabel.errors import ConfigError, DataError
from fewlabel.transforms import LabelsPresentd, RandFlipPairsd

LABEL = torch.tensor([[[0, 1, 3, 3]]])


@pytest.mark.parametrize(
    ("listed", "expected"),
    [(None, [1, 1, 1, 1]), ([1, 3], [1, 1, 0, 1]), ((3, 1), [1, 1, 0, 1]), ([1, 2, 3], [1, 1, 1, 1])],
)
def test_vector_of_what_is_present(listed: Any, expected: list[int]) -> None:
    item = {"label": LABEL} | ({} if listed is None else {"labels_present": listed})
    present = LabelsPresentd("label", classes=4)(item)["labels_present"]
    assert present.dtype == torch.bool and present.tolist() == [bool(v) for v in expected]
    assert item.get("labels_present") == listed


def test_a_class_of_several_values_is_present_when_all_of_them_are() -> None:
    made = LabelsPresentd("label", classes=3, label_map={"1": 1, "2": 1, "3": 2, "9": 0})
    label = torch.tensor([[[0, 2]]])
    assert made({"label": label, "labels_present": [1, 3]})["labels_present"].tolist() == [True, False, True]
    assert made({"label": label, "labels_present": [1, 2, 3]})["labels_present"].tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        ([], "labels_present"),
        ([0, 1], r"labels_present \[0, 1\]"),
        ([1, 7], r"one or more of \[1, 2, 3\]"),
        ([1, 2], "holds class 3, which its labels_present lacks"),
    ],
)
def test_lists_and_labels_that_disagree_are_refused_by_file(listed: list[int], problem: str) -> None:
    label = MetaTensor(LABEL, meta={"filename_or_obj": "case7.nii.gz"})
    with pytest.raises(DataError, match=f"(?s)case7.nii.gz.*{problem}"):
        LabelsPresentd("label", classes=4)({"label": label, "labels_present": listed})


def test_values_that_are_no_class_are_refused_not_indexed() -> None:
    for value in (-1, 4, 255):
        with pytest.raises(DataError, match=f"holds class {value}"):
            LabelsPresentd("label", classes=4)({"label": torch.tensor([[[0, value]]]), "labels_present": [1]})


def test_impossible_settings_and_missing_labels() -> None:
    with pytest.raises(ConfigError, match="names class 4, but there are 3 classes"):
        LabelsPresentd("label", classes=3, label_map={1: 4})
    with pytest.raises(KeyError):
        LabelsPresentd("label", classes=3)({})
    assert LabelsPresentd("label", classes=2, allow_missing_keys=True)({})["labels_present"].all()


def test_the_loader_stacks_items_with_and_without_the_list() -> None:
    items = [{"image": torch.zeros(1, 2, 2), "label": torch.zeros(1, 2, 2)} for _ in range(2)]
    items[0]["labels_present"] = [2]
    make = LabelsPresentd("label", classes=3)
    loader = StreamLoader(
        [make(i) for i in items], batch_size=2, epoch_length=1, keys=("image", "label", "labels_present")
    )
    present = next(iter(loader))["labeled"][0]["labels_present"]
    assert sorted(present.tolist()) == [[True, False, True], [True, True, True]]


def patient() -> dict[str, Any]:
    """Left organ 3 is large and at low x, right organ 4 is small and at high x; 1 has no side."""
    label = torch.zeros(1, 7, 4, 3)
    label[:, 0:3, 1:3, :2], label[:, 5:6, 2:3, 1:], label[:, 3:5, 0] = 3, 4, 1
    image = torch.arange(label.numel(), dtype=torch.float32).reshape(label.shape)
    affine = torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0]))
    return {
        "image": MetaTensor(image, affine=affine),
        "label": MetaTensor(label, affine=affine),
        "regions": label.int(),
    }


def test_an_asymmetric_volume_is_mirrored_and_its_sides_change_names() -> None:
    before = patient()
    flip = RandFlipPairsd(["image", "label", "regions"], pairs=[[3, 4]], axis=0, prob=1.0)
    after = flip(before)
    assert torch.equal(after["image"].as_tensor(), before["image"].as_tensor().flip(1))
    assert torch.equal(after["regions"], before["regions"].flip(1))
    mirrored = before["label"].as_tensor().flip(1)
    expected = mirrored.clone()
    expected[mirrored == 3], expected[mirrored == 4] = 4, 3
    assert torch.equal(after["label"].as_tensor(), expected) and not torch.equal(expected, mirrored)
    assert torch.equal(after["label"].affine, before["label"].affine)
    assert torch.equal(before["label"].as_tensor(), patient()["label"].as_tensor())
    twice = flip(after)
    assert all(torch.equal(twice[key].float(), before[key].float()) for key in before)


def test_what_is_present_changes_sides_too() -> None:
    item = LabelsPresentd("label", classes=5)({**patient(), "labels_present": [1, 3, 4]})
    item["labels_present"] = torch.tensor([True, True, False, True, False])
    flip = RandFlipPairsd(["image", "label"], pairs=[(3, 4)], prob=1.0)
    assert flip(item)["labels_present"].tolist() == [True, True, False, False, True]
    with pytest.raises(ValueError, match="put LabelsPresentd before"):
        flip({**item, "labels_present": [1, 3]})


def test_without_pairs_nothing_is_mirrored() -> None:
    before = patient()
    after = RandFlipPairsd(["image", "label"], pairs=[], prob=1.0)(before)
    assert all(after[key] is before[key] for key in before)


def test_chance_follows_the_state_of_the_compose() -> None:
    flip = Compose([RandFlipPairsd(["image", "label"], pairs=[[3, 4]], prob=0.5)])
    runs = []
    for _ in range(2):
        flip.set_random_state(seed=3)
        runs.append([torch.equal(flip(patient())["image"], patient()["image"]) for _ in range(20)])
    assert runs[0] == runs[1] and 3 < sum(runs[0]) < 17


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"pairs": [[3]]}, "no pairs of classes"),
        ({"pairs": [[0, 1]]}, "no pairs of classes"),
        ({"pairs": [["3", "4"]]}, "no pairs of classes"),
        ({"pairs": [[1, 1]]}, "a class twice"),
        ({"pairs": [[1, 2], [2, 3]]}, "a class twice"),
        ({"label_key": "mask"}, "but not 'mask'"),
    ],
)
def test_impossible_pairs_are_one_sentence(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RandFlipPairsd(["image", "label"], **settings)


def test_an_axis_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="expected an axis of space, 0 to 2, got 3"):
        RandFlipPairsd(["image", "label"], pairs=[[1, 2]], axis=3, prob=1.0)(patient())
