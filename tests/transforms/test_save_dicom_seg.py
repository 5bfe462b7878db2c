# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentation objects: read back by highdicom, on the voxels of the series in the patient's space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from tests.dicom_series import ct_series

from fewlabel.errors import ConfigError, DataError
from fewlabel.transforms import SaveDicomSegd
from fewlabel.transforms.dicom_seg import organ_code

NAMES = ["background", "left kidney", "brainstem", "thing"]


def load(path: Path) -> MetaTensor:
    loaded: MetaTensor = LoadImaged("pred", reader="fewlabel.data.AnyReader", ensure_channel_first=True)(
        {"pred": str(path)}
    )["pred"]
    return loaded


def labels_of(image: MetaTensor) -> MetaTensor:
    """Blocks of classes 1 and 3, none of 2, on the grid of an image; no symmetry, so that no turn goes unseen."""
    label = torch.zeros_like(image, dtype=torch.uint8)
    label[0, 20:50, 30:90, 1:3] = 1
    label[0, 70:75, 10:17, 0] = 3
    return label


def places(label: Any, affine: Any) -> Any:
    """Sorted positions in mm of the voxels of a mask."""
    at = np.argwhere(label) @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]
    return at[np.lexsort(at.round(3).T)]


@pytest.mark.parametrize("tilt", [False, True])
def test_voxels_are_where_they_were(tmp_path: Path, tilt: bool) -> None:
    source = ct_series(tmp_path / "series", tilt=tilt)
    label = labels_of(load(source))
    SaveDicomSegd("pred", tmp_path / "out", NAMES)({"pred": label})
    written = highdicom.seg.segread(tmp_path / "out" / "series_mask.dcm")
    assert [s.segment_label for s in (written.get_segment_description(n) for n in (1, 2))] == ["left kidney", "thing"]
    assert written.number_of_segments == 2
    to_lps = np.diag([-1, -1, 1, 1]) @ np.asarray(label.affine)
    volume = written.get_volume(combine_segments=False, allow_missing_positions=True)
    for segment, c in ((0, 1), (1, 3)):
        found = places(volume.array[..., segment] > 0, volume.affine)
        np.testing.assert_allclose(found, places(label[0] == c, to_lps), atol=1e-3)
    first = pydicom.dcmread(next(iter(source.iterdir())))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[name].value == first[name].value
    referenced = {i.ReferencedSOPInstanceUID for i in written.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {pydicom.dcmread(f).SOPInstanceUID for f in source.iterdir()}


def test_one_slice(tmp_path: Path) -> None:
    image = load(ct_series(tmp_path / "series", slices=1) / "0.dcm")
    label = torch.zeros_like(image, dtype=torch.uint8)
    assert label.shape == (1, 128, 128)
    label[0, 20:50, 30:90] = 1
    SaveDicomSegd("pred", tmp_path, NAMES)({"pred": label})
    written = highdicom.seg.segread(tmp_path / "0_mask.dcm")
    (frame,) = written.PerFrameFunctionalGroupsSequence
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [-40.0, -50.0, 12.0]
    np.testing.assert_array_equal(written.pixel_array.squeeze(), label[0].T)


def test_real_series(real_data: Any, tmp_path: Path) -> None:
    image = load(real_data("samples_loaders") / "dicom_ct_abdomen")
    label = torch.zeros_like(image, dtype=torch.uint8)
    label[0, 100:200, 50:60, 3:5] = 1
    SaveDicomSegd("pred", tmp_path, NAMES, postfix="")({"pred": label})
    volume = highdicom.seg.segread(tmp_path / "dicom_ct_abdomen.dcm").get_volume(combine_segments=True)
    found = places(volume.array > 0, volume.affine)
    np.testing.assert_allclose(found, places(label[0], np.diag([-1, -1, 1, 1]) @ np.asarray(label.affine)), atol=1e-3)


def test_what_is_no_series_or_empty_writes_nothing(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    save = SaveDicomSegd("pred", tmp_path / "out", NAMES)
    save({"pred": load(tmp_path / "a.nii.gz")})
    save({"pred": torch.zeros_like(load(ct_series(tmp_path / "series")))})
    SaveDicomSegd("pred", tmp_path / "out", NAMES, when="never")({"pred": labels_of(load(tmp_path / "series"))})
    assert not list((tmp_path / "out").glob("*"))


def test_another_grid_is_refused(tmp_path: Path) -> None:
    label = labels_of(load(ct_series(tmp_path / "series")))
    with pytest.raises(DataError, match=r"series' has \(128, 128, 4\) voxels and its label map \(64, 128, 4\)"):
        SaveDicomSegd("pred", tmp_path / "out", NAMES)({"pred": label[:, ::2]})
    assert not list((tmp_path / "out").glob("*"))


def test_without_the_package_auto_writes_nothing_and_always_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewlabel.transforms.save_dicom_seg._HAS_HIGHDICOM", False)
    SaveDicomSegd("pred", tmp_path / "out", NAMES)({"pred": labels_of(load(ct_series(tmp_path / "series")))})
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="needs highdicom: pip install"):
        SaveDicomSegd("pred", tmp_path, NAMES, when="always")
    with pytest.raises(ConfigError, match="choose one of auto, always, never"):
        SaveDicomSegd("pred", tmp_path, NAMES, when="yes")


def test_codes_are_those_of_the_dictionary() -> None:
    known = {"Left Kidney": "64033007", "brainstem": "119238007", "right parotid": "45289007", "spleen": "78961009"}
    assert {name: organ_code(name).value for name in known} == known
    assert organ_code("lesion 3") == organ_code("") and organ_code("").meaning == "Anatomical Structure"
