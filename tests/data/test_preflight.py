# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageFile
from pydicom.data import get_testdata_file
from tests.data.pictures import dataset, mask, picture

from fewlabel.data import check, splits
from fewlabel.errors import DataError

ONE = {"1": 1}


def _problems(*args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(DataError) as error:
        check(*args, progress=False, **kwargs)
    return error.value.problems


def _pair(image: Path, label: Path) -> list[dict[str, str]]:
    return [{"image": str(image), "label": str(label)}]


def test_sound_data_is_summed_up(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    picture(root / "images" / "f00.png", size=(20, 12))
    mask(root / "labels" / "f00.png", size=(20, 12))
    report = check(splits(root, label_budget=3), ONE, progress=False)
    assert report.pairs == 5 and report.unlabeled == 5
    assert report.sizes == {"16 x 12": 9, "20 x 12": 1} and report.channels == {3: 10}
    assert report.values == (0, 1) and report.warnings == ()
    assert str(report) == "5 images with a mask and 5 without: 9 of 16 x 12, 1 of 20 x 12, mask values 0, 1"


def _spoil(root: Path) -> dict[str, str]:
    """Spoil one file after another; return words of the sentence that each must get."""
    images, labels = root / "images", root / "labels"
    (images / "f00.png").unlink()
    picture(images / "f01.png", size=(200, 200))
    (images / "f01.png").write_bytes((images / "f01.png").read_bytes()[:5000])
    mask(labels / "f02.png", size=(12, 16))
    mask(labels / "f03.png", value=7)
    pixels = np.zeros((12, 16, 3), np.uint8)
    pixels[..., 0] = 1
    Image.fromarray(pixels).save(labels / "f04.png")
    Image.fromarray(pixels).convert("P").save(images / "f05.png")
    (labels / "f06.png").write_bytes(b"")
    Image.fromarray(pixels).convert("CMYK").save(images / "f07.png", format="JPEG")
    return {
        "images/f00.png": "does not exist; correct the datalist or dataset_dir",
        "images/f01.png": "cannot be read (image file is truncated",
        "labels/f02.png": f"mask of 12 x 16, but its image {images}/f02.png is 16 x 12",
        "labels/f03.png": "mask values 7 are not in label_map",
        "labels/f04.png": "colored mask (its channels differ)",
        "images/f05.png": "palette picture",
        "labels/f06.png": "cannot be read",
        "images/f07.png": "CMYK picture",
    }


def test_every_bad_case_is_reported_at_once(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    expected = _spoil(root)
    problems = _problems(splits(root), ONE)
    assert len(problems) == len(expected)
    for file, words in expected.items():
        assert any(p.startswith(f"{root / file}: ") and words in p for p in problems), (file, problems)
    assert _problems(splits(root), ONE) == problems


def test_unlabeled_images_are_read_and_their_masks_are_not(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    draw = splits(root, label_budget=2)
    for item in draw.unlabeled:
        (root / "labels" / Path(item["image"]).name).write_bytes(b"poison")
    assert check(draw, ONE, progress=False).unlabeled == 6
    Path(draw.unlabeled[0]["image"]).write_bytes(b"no picture")
    assert len(_problems(draw, ONE)) == 1


def test_test_list_is_not_read(tmp_path: Path) -> None:
    check(splits(dataset(tmp_path, test=[{"image": "images/gone.png", "label": "gone.png"}])), ONE, progress=False)


def test_unlabeled_items_that_point_to_a_label(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    items = [dict(splits(root).labeled[0]), {"image": splits(root).labeled[0]["label"]}]
    problems = _problems(items, ONE)
    assert len(problems) == 1 and "an unlabeled item must not carry the label" in problems[0]


def test_label_map_keys_may_be_words_or_numbers(tmp_path: Path) -> None:
    image, label = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", value=255)
    for label_map in ({"255": 1}, {255: 1}, {"1": 1, "2": 1, "255": 1}, None):
        assert check(_pair(image, label), label_map, progress=False).values == (0, 255)
    assert "255" in _problems(_pair(image, label), {"1": 1})[0]


def test_channel_counts(tmp_path: Path) -> None:
    gray = tmp_path / "gray.png"
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(gray)
    assert check([{"image": str(gray)}], progress=False).channels == {1: 1}
    assert "channel count 1 where this bundle reads 3" in _problems([{"image": str(gray)}], channels=(3,))[0]
    with_alpha = tmp_path / "alpha.png"
    Image.new("LA", (16, 12)).save(with_alpha)
    check([{"image": str(with_alpha)}], progress=False)  # gray with transparency
    two = [{"image": [str(gray), str(gray)]}]
    assert "channel count 2" in _problems(two)[0]
    assert check(two, channels=(2,), progress=False).channels == {2: 1}
    other = picture(tmp_path / "other.png", size=(8, 8))
    assert "channels must have one size" in _problems([{"image": [str(gray), str(other)]}])[0]


def test_masks_with_equal_channels_or_transparency_are_fine(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    label = mask(tmp_path / "m.png")
    for mode in ("RGB", "RGBA", "LA", "P"):
        Image.open(label).convert(mode).save(tmp_path / f"{mode}.png")
        report = check(_pair(image, tmp_path / f"{mode}.png"), ONE, progress=False)
        assert report.values == (0, 1)


def test_empty_masks_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = dataset(tmp_path, empty=(0, 4))
    report = check(splits(root), ONE, progress=False)
    assert report.warnings[0].startswith("2 of 10 masks hold nothing but background") and "2 of 10" in caplog.text
    assert "all masks" in check(splits(root).labeled, {"1": 0}, progress=False).warnings[0]


def _volume(path: Path, values: np.ndarray[Any, Any], spacing: float = 1.0, shift: float = 0.0) -> Path:
    affine = np.diag([spacing, spacing, 2.0, 1.0])
    affine[0, 3] = shift
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def test_volumes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    label = (values > 0).astype(np.uint8)
    image = _volume(tmp_path / "image.nii.gz", values)
    report = check(_pair(image, _volume(tmp_path / "label.nii.gz", label, shift=1e-4)), ONE, progress=False)
    assert report.sizes == {"6 x 5 x 4": 1} and report.values == (0, 1)
    for name, options in (("shift", {"shift": 0.5}), ("spacing", {"spacing": 1.1})):
        moved = _volume(tmp_path / f"{name}.nii.gz", label, **options)
        assert "its grid (origin, spacing or orientation)" in _problems(_pair(image, moved), ONE)[0]
    values[1, 2, 3] = np.nan
    assert "NaN" in _problems([{"image": str(_volume(tmp_path / "nan.nii.gz", values))}])[0]
    flat = _volume(tmp_path / "flat.nii", label)
    content = bytearray(flat.read_bytes())
    content[296:312] = bytes(16)  # the second row of the header's affine
    flat.write_bytes(content)
    assert "spacing is zero" in _problems([{"image": str(flat)}])[0]
    nothing = nibabel.Nifti1Image(np.zeros((0, 5, 4), np.int16), np.eye(4))
    nibabel.save(nothing, tmp_path / "nothing.nii")
    assert "0 x 5 x 4" in _problems([{"image": str(tmp_path / "nothing.nii")}])[0]


def test_fractions_and_negative_values_are_no_labels(tmp_path: Path) -> None:
    label = np.zeros((6, 5, 4), np.float32)
    label[0, 0, :2] = -1, 0.5
    pair = _pair(_volume(tmp_path / "i.nii", label), _volume(tmp_path / "l.nii", label))
    assert "mask values -1, 0.5 are no labels" in _problems(pair)[0]


def test_nifti_slice_tiff_and_dicom(tmp_path: Path) -> None:
    flat = np.zeros((7, 9), np.int16)
    nibabel.save(nibabel.Nifti1Image(flat, np.eye(4)), tmp_path / "slice.nii.gz")
    Image.fromarray(np.full((9, 7), 40_000, np.uint16)).save(tmp_path / "deep.tif")
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path / "ct.dcm")
    items = [{"image": str(tmp_path / name)} for name in ("slice.nii.gz", "deep.tif", "ct.dcm")]
    assert check(items, progress=False).sizes == {"7 x 9": 2, "128 x 128": 1}
    Image.fromarray(flat.T.astype(np.uint8)).save(tmp_path / "label.tif")
    check(_pair(tmp_path / "slice.nii.gz", tmp_path / "label.tif"), ONE, progress=False)


def test_tiff_with_several_pages(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((4, 4), np.uint8))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    assert "3 pages" in _problems([{"image": str(tmp_path / "stack.tif")}])[0]


def test_truncation_is_found_even_where_a_library_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = picture(tmp_path / "a.jpg", size=(200, 200))
    path.write_bytes(path.read_bytes()[:5000])
    assert "truncated" in _problems([{"image": str(path)}])[0]
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_cache_without_write_permission_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path / "file" / "below"))
    check(splits(dataset(tmp_path / "data")), ONE, progress=False)


@pytest.mark.parametrize(
    ("name", "label_map"),
    [
        ("mms_endovis15", {"1": 1, "2": 1, "255": 1}),
        ("psm_nuclei_tnbc", None),
        ("lrc_abdomen_curvas", {"1": 1, "2": 2, "3": 3}),
        ("lrc_han_openkbp", {str(i): i for i in range(1, 8)}),
    ],
)
def test_real_data_pass(real_data: Any, name: str, label_map: dict[str, int] | None) -> None:
    root = real_data(name)
    report = check(splits(root, "dataset.json", label_budget=4), label_map, progress=False)
    lists = json.loads((root / "dataset.json").read_text())
    hidden = len(lists["training"]) - 4 + len(lists.get("partial_label", []))
    assert report.pairs == 4 + len(lists["validation"]) and report.unlabeled == hidden
    assert not report.warnings
