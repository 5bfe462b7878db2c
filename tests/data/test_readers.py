# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.data import get_testdata_file

from fewlabel.data import AnyReader
from fewlabel.data.formats import files_of, kind, stem, suffix


@pytest.mark.parametrize(
    ("name", "end", "rest"),
    [
        ("a.PNG", ".png", "a"),
        ("x/a.b.nii.gz", ".nii.gz", "a.b"),
        ("a.gz", "", "a.gz"),
        (".png", "", ".png"),
        ("a", "", "a"),
    ],
)
def test_suffix_and_stem(name: str, end: str, rest: str) -> None:
    assert suffix(name) == end and stem(name) == rest


def test_files_of() -> None:
    assert files_of("a.png") == files_of(Path("a.png")) == ("a.png",)
    assert files_of(["a.png", "b.png"]) == ("a.png", "b.png")
    assert files_of(3) == files_of(None) == files_of([1, "a"]) == ()


def _read(path: Path | str | list[str]) -> np.ndarray[Any, Any]:
    return LoadImaged("image", reader="fewlabel.data.AnyReader", dtype=None)({"image": path})["image"].numpy()


@pytest.mark.parametrize("end", [".png", ".tif", ".TIFF", ".bmp"])
def test_pictures_come_as_width_height(tmp_path: Path, end: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{end}")
    np.testing.assert_array_equal(_read(tmp_path / f"a{end}"), pixels.swapaxes(0, 1))


def test_sixteen_bit_tiff_and_channels_from_several_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(_read(tmp_path / "a.tif"), pixels.T)
    both = _read([str(tmp_path / "a.tif")] * 2)
    assert both.shape == (2, 7, 5)


def test_nifti_slice_and_dicom(tmp_path: Path) -> None:
    slice_ = np.arange(12, dtype=np.int16).reshape(3, 4)
    nibabel.save(nibabel.Nifti1Image(slice_, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(_read(tmp_path / "a.nii.gz"), slice_)
    source = str(get_testdata_file("CT_small.dcm"))
    record = pydicom.dcmread(source)
    expected = record.pixel_array * float(record.RescaleSlope) + float(record.RescaleIntercept)
    np.testing.assert_allclose(_read(source), expected.T)


def test_dicom_is_known_by_its_mark(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    for name in ("IM0001", "1.2.840.113"):
        (tmp_path / name).write_bytes(source)
        assert kind(tmp_path / name) == "dicom"
    assert kind(tmp_path) == "dicom"
    assert AnyReader().verify_suffix([tmp_path / "IM0001"]) and not AnyReader().verify_suffix(tmp_path / "x.csv")


def test_real_series(real_data: Any) -> None:
    assert _read(real_data("samples_loaders") / "dicom_ct_abdomen").shape == (512, 512, 20)


def test_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*x\.csv"):
        AnyReader().read(tmp_path / "x.csv")


def test_package_is_cheap_to_import() -> None:
    code = "import sys, fewlabel.data, fewlabel.data.folders; print(any(m in sys.modules for m in ('torch', 'monai')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_loads() -> None:
    from fewlabel import data

    assert all(getattr(data, name) is not None for name in data.__all__) and set(data.__all__) <= set(dir(data))
    with pytest.raises(AttributeError):
        _ = data.nothing
