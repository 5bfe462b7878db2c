# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from tests.data.pictures import dataset, picture

from fewlabel import data
from fewlabel.errors import ConfigError, DataError


def _names(items: Any) -> list[str]:
    return [Path(item["image"]).name for item in items]


def test_test_list_comes_first_then_validation_then_held_out_groups(tmp_path: Path) -> None:
    root = dataset(tmp_path / "a")
    found = data.test_list(root)
    assert found.name == "validation" and _names(found.items) == ["f08.png", "f09.png"]
    test = [{"image": "images/t.png", "label": "labels/t.png"}]
    root = dataset(tmp_path / "b", test=test)
    found = data.test_list(root)
    assert found.name == "test" and _names(found.items) == ["t.png"] == _names(data.test_items(root))
    held = data.test_list(root, hold_out="V1")
    assert held.name == "validation" and {item["video"] for item in held.items} == {"V1"}


def test_items_to_be_scored_need_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t1\.png in 'test' has no 'label'"):
        data.test_items(dataset(tmp_path, test=["images/t1.png"]))


def test_single_image_folder_pattern_and_text_list(tmp_path: Path) -> None:
    for name in ("v2/frame_10.png", "v2/frame_9.JPG", "v10/frame_1.tif", ".hidden/x.png", "v2/._frame_9.png"):
        picture(tmp_path / name.lower()).rename(tmp_path / name)
    (tmp_path / "notes.csv").touch()
    order = ["v2/frame_9.JPG", "v2/frame_10.png", "v10/frame_1.tif"]
    folder = data.inference_items(tmp_path)
    assert [item["image"] for item in folder] == [str(tmp_path / name) for name in order]
    assert all(item.keys() == {"image"} for item in folder)
    assert data.inference_items(tmp_path / order[0]) == folder[:1]
    assert _names(data.inference_items(f"{tmp_path}/v2/*_1*.png")) == ["frame_10.png"]
    assert _names(data.inference_items(f"{tmp_path}/**/*.tif")) == ["frame_1.tif"]
    (tmp_path / "list.txt").write_text(f"# frames\nv10/frame_1.tif\n\n{tmp_path}/v2/frame_10.png\n")
    assert _names(data.inference_items(tmp_path / "list.txt")) == ["frame_1.tif", "frame_10.png"]
    (tmp_path / "list.txt").write_text("gone.png\nnotes.csv\n")
    with pytest.raises(DataError, match=r"(?s)gone\.png.*notes\.csv"):
        data.inference_items(tmp_path / "list.txt")


def test_nothing_to_segment(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.png", f"{tmp_path}/*.png"):
        with pytest.raises(ConfigError, match="nothing to segment"):
            data.inference_items(path)


def test_dicom_files_and_folders(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    series = tmp_path / "patient" / "series"
    series.mkdir(parents=True)
    for name in ("1.dcm", "2.dcm"):
        (series / name).write_bytes(source)
    (tmp_path / "patient" / "single").write_bytes(source)  # no suffix: known by its mark
    (tmp_path / "patient" / "other").write_bytes(b"x" * 200)
    items = data.inference_items(tmp_path)
    assert [item["image"] for item in items] == [str(series), str(series.parent / "single")] or [
        item["image"] for item in items
    ] == [str(series.parent / "single"), str(series)]
    assert data.inference_items(series) == [{"image": str(series)}]


def test_data_set_folder_with_its_list_leaves_masks_out(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    assert len(data.inference_items(root)) == 20  # every picture, masks among them
    assert _names(data.inference_items(root, datalist="datalist.json")) == ["f08.png", "f09.png"]
    assert data.inference_items(root, datalist="datalist.json")[0].keys() == {"image"}


def test_phantom_frames_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabel.data import phantoms

    monkeypatch.setattr(phantoms, "folder", lambda name, seed: dataset(tmp_path), raising=False)
    items = data.inference_items()
    assert _names(items) == ["f08.png", "f09.png"] and all(item.keys() == {"image"} for item in items)


def test_files_whose_masks_would_have_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/x.jpg", "a/x.y.png", "b/x.png", "c.nii.gz", "c.png"):
        picture(tmp_path / name.replace(".nii.gz", ".png")).rename(tmp_path / name)
    picture(tmp_path / "c.png")
    with pytest.raises(DataError) as caught:
        data.inference_items(tmp_path)
    assert len(caught.value.problems) == 2
    assert all(word in str(caught.value) for word in ("a/x.jpg", "a/x.png", "c.nii.gz", "c.png", "same name"))
    assert len(data.inference_items(tmp_path, unique=False)) == 6
    (tmp_path / "list.txt").write_text("b/x.png\nb/x.png\n")
    assert len(data.inference_items(tmp_path / "list.txt")) == 2, "one file twice replaces nothing but itself"
