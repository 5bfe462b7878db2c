# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigParser
from monai.data import Dataset
from tests.data.pictures import dataset, picture

from fewlabel.data import splits, training_images, unlabeled_pool
from fewlabel.errors import ConfigError


def test_own_split_gives_its_unlabeled_items(tmp_path: Path) -> None:
    draw = splits(dataset(tmp_path), label_budget=3)
    pool = unlabeled_pool(Dataset(draw.labeled), draw)
    assert list(pool.data) == list(draw.unlabeled) and len(pool) == 5
    with pytest.raises(ConfigError, match="--unlabeled"):
        unlabeled_pool(Dataset(draw.labeled), draw, folder=tmp_path)


def test_own_split_without_unlabeled_items_uses_the_labeled_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = splits(dataset(tmp_path))
    pool = unlabeled_pool(Dataset(draw.labeled), draw)
    assert [i["image"] for i in pool.data] == [i["image"] for i in draw.labeled]
    assert all("label" not in item for item in pool.data) and "labeled ones serve" in caplog.text


def test_list_from_outside_never_meets_the_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw = splits(dataset(tmp_path / "phantoms"), label_budget=2)
    theirs = [{"image": str(picture(tmp_path / "store" / f"{n}.png")), "label": f"{n}_mask.png"} for n in "ab"]
    picture(tmp_path / "store" / "c.png")
    pool = unlabeled_pool(Dataset(theirs), draw, folder=tmp_path / "store")
    assert list(pool.data) == [{"image": str(tmp_path / "store" / "c.png")}]
    assert not caplog.records
    fallback = unlabeled_pool(Dataset(theirs), draw)
    assert list(fallback.data) == [{"image": item["image"]} for item in theirs]
    assert "labeled ones serve" in caplog.text


def test_folder_that_the_server_watches_gives_no_masks(tmp_path: Path) -> None:
    """MONAI Label keeps labels, and predictions that a client has saved, in the folder of the images."""
    picture(tmp_path / "labels" / "original" / "b.png")
    theirs = [
        {"image": str(picture(tmp_path / "a.png")), "label": str(picture(tmp_path / "labels" / "final" / "a.png"))}
    ]
    picture(tmp_path / "b.png")
    picture(tmp_path / "more" / "c.png")
    pool = unlabeled_pool(Dataset(theirs), None, folder=tmp_path)
    assert [item["image"] for item in pool.data] == [str(tmp_path / "b.png"), str(tmp_path / "more" / "c.png")]


def test_masks_beside_their_images_are_left_out(tmp_path: Path) -> None:
    theirs = [{"image": str(picture(tmp_path / "a.png")), "label": str(picture(tmp_path / "a_mask.png"))}]
    picture(tmp_path / "b.png")
    assert list(unlabeled_pool(Dataset(theirs), None, folder=tmp_path).data) == [{"image": str(tmp_path / "b.png")}]


def test_identity_survives_a_config(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    config = {
        "splits": {"_target_": "fewlabel.data.splits", "dataset_dir": str(root), "label_budget": 3},
        "dataset": {"_target_": "fewlabel.data.CachedDataset", "data": "$@splits.labeled", "transform": []},
        "pool": {"_target_": "fewlabel.data.unlabeled_pool", "dataset": "@dataset", "splits": "@splits"},
    }
    assert len(ConfigParser(config).get_parsed_content("pool")) == 5
    config["dataset"]["data"] = [{"image": "x.png", "label": "y.png"}]
    assert list(ConfigParser(config).get_parsed_content("pool").data) == [{"image": "x.png"}]


def test_pool_is_built_without_reading(tmp_path: Path) -> None:
    items = ({"image": "gone.png"},)
    fake = SimpleNamespace(labeled=(), unlabeled=items)
    assert len(unlabeled_pool(SimpleNamespace(data=fake.labeled), fake)) == 1  # type: ignore[arg-type]


def test_training_images_are_the_same_for_every_budget_and_carry_no_label(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    few, other = (splits(root, label_budget=2, split_seed=seed) for seed in (0, 1))
    images = training_images(few)
    assert few.labeled != other.labeled and images == training_images(other) == training_images(splits(root))
    assert all("label" not in item for item in images)
    assert {item["image"] for item in images} == {item["image"] for item in (*few.labeled, *few.unlabeled)}
    assert training_images([{"image": "b", "label": "c"}, {"image": "a"}]) == [{"image": "a"}, {"image": "b"}]
