# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Resized, Transposed
from PIL import Image

from fewlabel.errors import ConfigError
from fewlabel.transforms import SaveOverlayd, ToRGBd, read_picture
from fewlabel.transforms.overlay import COLORS, TRUTH_COLOR

H, W = 24, 36


def write(path: Path, value: int = 90) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), value, np.uint8)).save(path)
    return str(path)


def mask(source: str, rows: slice = slice(4, 12)) -> MetaTensor:
    """A mask over some rows of the picture, in the axes (1, W, H) of MONAI's readers."""
    labels = torch.zeros(1, W, H)
    labels[:, :, rows] = 1
    return MetaTensor(labels, meta={"filename_or_obj": source})


def test_after_inversion_the_overlay_lies_on_the_file_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "frame.png")
    pre = Compose(
        [
            LoadImaged("image", dtype=None),
            EnsureChannelFirstd("image"),
            ToRGBd("image"),
            Transposed("image", [0, 2, 1]),
            Resized("image", (48, 72)),
        ]
    )
    item = pre({"image": source})
    pred = torch.zeros(1, 48, 72)
    pred[:, :24] = 1  # the upper half, as the network sees it
    item["pred"] = MetaTensor(pred)
    item = Invertd("pred", transform=pre, orig_keys="image", nearest_interp=True)(item)
    SaveOverlayd("pred", tmp_path / "out", alpha=1.0)(item)
    drawn = np.asarray(Image.open(tmp_path / "out" / "frame_overlay.png"))
    assert drawn.shape == (H, W, 3)
    assert bool((drawn[: H // 2] == COLORS[0]).all()) and bool((drawn[H // 2 :] == 90).all())


def test_subfolders_are_kept_and_name_clashes_refused(tmp_path: Path) -> None:
    sources = [write(tmp_path / "in" / video / "f1.png") for video in ("a", "b")]
    keep = SaveOverlayd("pred", tmp_path / "out", data_root_dir=tmp_path / "in", output_postfix="")
    for source in sources:
        keep({"pred": mask(source)})
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "a/f1.png",
        "b/f1.png",
    ]
    flat = SaveOverlayd("pred", tmp_path / "flat")
    flat({"pred": mask(sources[0])})
    flat({"pred": mask(sources[0])})
    with pytest.raises(ConfigError, match="data_root_dir"):
        flat({"pred": mask(sources[1])})


def test_truth_and_network_axes(tmp_path: Path) -> None:
    source = write(tmp_path / "f.png")
    truth = torch.zeros(1, H, W)
    truth[:, 14:20, 4:30] = 1
    item = {"image": mask(source), "pred": torch.zeros(1, H, W), "label": truth}
    SaveOverlayd("pred", tmp_path, image_key="image", truth_key="label", axes="HW")(item)
    drawn = np.asarray(Image.open(tmp_path / "f_overlay.png"))
    assert tuple(drawn[14, 10]) == TRUTH_COLOR and tuple(drawn[17, 10]) == (90, 90, 90)


def test_wrong_size_axes_and_missing_file_name_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "f.png")
    with pytest.raises(ValueError, match="check Invertd and axes"):
        SaveOverlayd("pred", tmp_path, axes="HW")({"pred": mask(source)})
    with pytest.raises(ValueError, match="file name in the metadata of 'pred'"):
        SaveOverlayd("pred", tmp_path)({"pred": torch.zeros(1, W, H)})
    with pytest.raises(ValueError, match="'WH' or 'HW'"):
        SaveOverlayd("pred", tmp_path, axes="XY")


def test_other_formats_become_pictures(tmp_path: Path) -> None:
    import nibabel

    ramp = np.tile(np.arange(W, dtype=np.float32), (H, 1)) * 40 - 300
    nibabel.save(nibabel.Nifti1Image(ramp.T[..., None], np.eye(4)), tmp_path / "s.nii.gz")
    Image.fromarray((ramp + 300).astype(np.uint16)).save(tmp_path / "s.png")
    for name in ("s.nii.gz", "s.png"):
        picture = read_picture(tmp_path / name)
        assert picture.shape == (H, W, 3) and picture.dtype == np.uint8
        assert bool((np.diff(picture[3, :, 0].astype(int)) >= 0).all()) and int(np.ptp(picture)) == 255
    SaveOverlayd("pred", tmp_path / "o")({"pred": mask(str(tmp_path / "s.nii.gz"))})
    assert (tmp_path / "o" / "s_overlay.png").is_file()
