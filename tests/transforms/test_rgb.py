# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Resized, Transposed
from PIL import Image

from fewlabel.errors import DataError
from fewlabel.transforms import ToRGB, ToRGBd

H, W = 12, 20


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def pipeline(reader: object = None) -> Compose:
    return Compose(
        [
            LoadImaged("image", image_only=True, dtype=None, reader=reader),
            EnsureChannelFirstd("image"),
            ToRGBd("image"),
            Transposed("image", [0, 2, 1]),
        ]
    )


def save(kind: str, rgb: np.ndarray, folder: Path) -> tuple[Path, np.ndarray]:
    """Write ``rgb`` in one format; return the file and what a viewer shows of it, (H, W, 3) in 0..1."""
    gray, path = rgb[..., 0], folder / kind
    shown = rgb / 255 if kind.startswith(("rgb", "layers")) else np.repeat(gray[..., None], 3, 2) / 255
    if kind == "slice.nii.gz":
        nibabel.save(nibabel.Nifti1Image((gray.T[..., None] / 255).astype(np.float32), np.eye(4)), path)
        return path, shown
    pixels = {"gray": gray, "gray16": gray.astype(np.uint16) * 257, "rgba": np.dstack([rgb, gray]), "ga": None}
    array = pixels.get(path.stem, rgb)
    picture = Image.fromarray(np.dstack([gray, rgb[..., 1]]), "LA") if path.stem == "ga" else Image.fromarray(array)
    picture.save(path)
    return path, shown


KINDS = ["rgb.png", "rgb.bmp", "rgb.tif", "rgba.png", "gray.png", "gray.tif", "gray16.png", "gray16.tif", "ga.png"]


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("reader", ["fewlabel.data.AnyReader", None])
@pytest.mark.parametrize("kind", [*KINDS, "slice.nii.gz"])
def test_file_formats_give_what_a_viewer_shows(kind: str, reader: str | None, rgb: np.ndarray, tmp_path: Path) -> None:
    path, shown = save(kind, rgb, tmp_path)
    image = pipeline(reader or ("PILReader" if kind.endswith("tif") else None))({"image": str(path)})["image"]
    assert image.dtype == torch.float32 and image.shape == (3, H, W)
    np.testing.assert_allclose(np.asarray(image).transpose(1, 2, 0), shown, atol=1e-6)


def test_pil_reader_leaves_other_formats_to_the_fallback(rgb: np.ndarray, tmp_path: Path) -> None:
    path, shown = save("slice.nii.gz", rgb, tmp_path)
    image = pipeline("PILReader")({"image": str(path)})["image"]
    np.testing.assert_allclose(np.asarray(image).transpose(1, 2, 0), shown, atol=1e-6)


def test_metadata_and_inversion_survive(rgb: np.ndarray, tmp_path: Path) -> None:
    path, _ = save("rgba.png", rgb, tmp_path)
    pre = Compose([*pipeline().transforms, Resized("image", (24, 40))])
    item = pre({"image": str(path)})
    assert item["image"].meta["filename_or_obj"] == str(path)
    item["pred"] = MetaTensor(torch.ones(1, 24, 40))
    back = Invertd("pred", transform=pre, orig_keys="image", nearest_interp=True)(item)["pred"]
    assert back.shape == (1, W, H) and back.meta["filename_or_obj"] == str(path)


def test_arrays_keep_their_container_and_their_values() -> None:
    gray = np.array([[[0, 51], [102, 255]]], np.uint8)
    out = ToRGB()(gray)
    assert isinstance(out, np.ndarray) and out.dtype == np.float32
    np.testing.assert_allclose(out, np.repeat(gray, 3, 0) / 255, atol=1e-7)
    floats = torch.rand(3, 4, 5)
    assert torch.equal(ToRGB()(floats), floats) and ToRGB()(floats).data_ptr() != floats.data_ptr()
    assert float(ToRGB()(np.full((1, 2, 2), 65535, np.uint16)).max()) == 1.0
    assert ToRGB()(torch.ones(1, 2, 2, dtype=torch.bool)).shape == (3, 2, 2)


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_indices_and_inks_are_refused_with_file_and_remedy(mode: str, rgb: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / ("x.png" if mode == "P" else "x.jpg")
    Image.fromarray(rgb).convert(mode).save(path)
    with pytest.raises(DataError, match=r"x\.(png|jpg)' holds .*converter"):
        pipeline()({"image": str(path)})


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((1, 2, 2), -1024.0), "from -1024 to -1024.*ScaleIntensityRanged"),
        (np.full((3, 2, 2), 255.0, np.float32), "to 255, expected 0 to 1"),
        (np.full((1, 2, 2), np.nan, np.float32), "nan"),
        (np.zeros((1, 2, 2), np.int16), "int16 numbers.*ScaleIntensityRanged"),
        (np.zeros((7, 2, 2), np.uint8), r"received shape \(7, 2, 2\)"),
        (np.zeros((2, 2), np.uint8), r"received shape \(2, 2\)"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"received shape \(1, 2, 2, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ToRGB()(array)
    with pytest.raises(DataError, match="'scan7'"):
        ToRGB()(MetaTensor(torch.as_tensor(array), meta={"filename_or_obj": "scan7"}))
