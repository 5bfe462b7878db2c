# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image

from fewlabel.errors import ConfigError, DataError
from fewlabel.transforms import MapLabels, MapLabelsd, parse_label_map

TOOL = {"1": 1, "2": 1, "255": 1}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_values_are_mapped_whatever_the_dtype(dtype: type) -> None:
    mask = np.array([[[0, 1], [2, 255]]], dtype)
    out = MapLabels(TOOL)(mask)
    assert isinstance(out, np.ndarray) and out.dtype == np.float32
    assert out.tolist() == [[[0, 1], [1, 1]]]


@pytest.mark.parametrize("label_map", [{-1: 2, 7: 1, 500000: 3}, {"-1": "2", "7": "1", "500000": "3"}])
def test_negative_and_huge_labels_work(label_map: dict) -> None:
    out = MapLabels(label_map)(torch.tensor([[[-1, 7], [500000, 0]]]))
    assert out.tolist() == [[[2, 1], [3, 0]]]
    with pytest.raises(DataError, match="holds label 8,"):
        MapLabels(label_map)(torch.tensor([[[8]]]))


def test_zero_stays_background_unless_mapped() -> None:
    assert parse_label_map({"1": 1}) == {0: 0, 1: 1}
    assert MapLabels({"0": 1, "255": 0})(np.array([[[0, 255]]], np.uint8)).tolist() == [[[1, 0]]]


@pytest.mark.parametrize("values", [[3], [-1], [256], [3, 70000]])
def test_unmapped_values_are_named_with_file_and_key(values: list[int]) -> None:
    mask = MetaTensor(torch.tensor([[[0, 1, *values]]]), meta={"filename_or_obj": "op1/mask.png"})
    with pytest.raises(DataError, match=r"op1/mask\.png") as caught:
        MapLabelsd("label", TOOL)({"label": mask})
    assert "'label_map'" in str(caught.value) and ", ".join(map(str, sorted(values))) in str(caught.value)


def test_a_lossily_saved_mask_is_recognized(tmp_path: Path) -> None:
    disk = (np.hypot(*np.mgrid[-20:20, -20:20]) < 12).astype(np.uint8) * 255
    Image.fromarray(disk).save(tmp_path / "m.jpg", quality=50)
    load = Compose([LoadImaged("label", dtype=None), EnsureChannelFirstd("label"), MapLabelsd("label", TOOL)])
    with pytest.raises(DataError, match=r"m\.jpg' holds label .*lossily"):
        load({"label": str(tmp_path / "m.jpg")})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "L", "I;16"])
def test_gray_masks_saved_in_other_modes_become_one_channel(mode: str, tmp_path: Path) -> None:
    gray = np.zeros((6, 9), np.uint8)
    gray[2:4, 3:8] = 1 if mode == "1" else 2
    picture = Image.fromarray(gray)
    if mode == "P":
        picture = Image.fromarray(gray, "P") if not hasattr(picture, "putpalette") else picture
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    elif mode == "1":
        picture = Image.fromarray(gray > 0)
    elif mode == "I;16":
        picture = Image.fromarray(gray.astype(np.uint16))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "m.png")
    load = Compose([LoadImaged("label", dtype=None), EnsureChannelFirstd("label"), MapLabelsd("label", TOOL)])
    label = load({"label": str(tmp_path / "m.png")})["label"]
    assert label.shape == (1, 9, 6) and label.dtype == torch.float32
    assert np.array_equal(np.asarray(label)[0].T, gray > 0)


def test_colored_masks_and_fractions_are_refused() -> None:
    color = np.zeros((3, 4, 4), np.uint8)
    color[0] = 255
    with pytest.raises(DataError, match="mask in color"):
        MapLabels(TOOL)(color)
    with pytest.raises(DataError, match="fractions"):
        MapLabels(TOOL)(np.full((1, 2, 2), 0.5))
    with pytest.raises(DataError, match=r"\(1, 2, 2, 2, 2\)"):
        MapLabels(TOOL)(np.zeros((1, 2, 2, 2, 2), np.uint8))


def test_slices_lose_their_trailing_axis_and_missing_masks_pass() -> None:
    assert MapLabels(TOOL)(torch.ones(1, 4, 5, 1)).shape == (1, 4, 5)
    assert MapLabelsd("label", TOOL, allow_missing_keys=True)({"image": 1}) == {"image": 1}


def test_nearest_resize_of_mapped_masks_keeps_the_classes() -> None:
    mask = torch.randint(0, 3, (1, 33, 47))
    out = Resized("label", (64, 96), mode="nearest")({"label": MapLabels({"1": 1, "2": 2})(mask)})["label"]
    assert set(out.unique().tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("label_map", [{"tool": 1}, {"1": "one"}, {"1": -1}, {"1": 0.5}])
def test_bad_maps_are_refused_at_construction(label_map: dict) -> None:
    with pytest.raises(ConfigError, match="label_map"):
        MapLabels(label_map)


def test_volumes_are_mapped_too() -> None:
    out = MapLabels({"1": 2})(MetaTensor(torch.ones(1, 3, 4, 5), affine=torch.diag(torch.tensor([2.0, 2, 3, 1]))))
    assert out.shape == (1, 3, 4, 5) and bool((out == 2).all()) and out.pixdim.tolist() == [2, 2, 3]
