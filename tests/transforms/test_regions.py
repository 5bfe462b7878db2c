# SPDX-License-Identifier: Apache-2.0
"""Regions in an item: as the function makes them, with the item's own spacing and metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from fewlabel.errors import DataError
from fewlabel.superpixels import region_map
from fewlabel.transforms import AddRegionsd, spacing_of


def image(*shape: int, spacing: tuple[float, ...] = (), name: str = "") -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, *[1.0] * (4 - len(spacing))], dtype=torch.float64))
    meta = {"filename_or_obj": name} if name else {}
    return MetaTensor(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)), affine=affine, meta=meta)


@pytest.mark.parametrize(("shape", "spacing"), [((24, 20), (2.0, 3.0)), ((8, 12, 10), (1.5, 1.5, 4.0))])
def test_uses_the_spacing_of_the_item(shape: tuple[int, ...], spacing: tuple[float, ...], tmp_path: Path) -> None:
    img = image(*shape, spacing=spacing)
    settings = {"min_size_mm2": 40.0, "min_size_mm3": 90.0, "folder": tmp_path}
    add = AddRegionsd(**settings)
    before = img.clone()
    item = add({"image": img, "patient": 3})
    regions = item["regions"]
    assert item["patient"] == 3 and item["image"] is img and torch.equal(img, before)
    assert isinstance(regions, MetaTensor) and regions.dtype == torch.int32 and torch.equal(regions.affine, img.affine)
    assert torch.equal(regions.as_tensor(), region_map(img.as_tensor(), spacing_mm=spacing, **settings))
    assert not torch.equal(regions.as_tensor(), region_map(img.as_tensor(), **settings))
    assert add.file(item).is_file() and spacing_of(img) == list(spacing)


def test_spacing_turns_with_the_axes() -> None:
    img = image(6, 8, 10, spacing=(-1.0, 2.0, 3.0))
    turned = Orientationd("image", "SRA", labels=None)({"image": img})["image"]
    assert turned.shape == (1, 10, 6, 8) and spacing_of(turned) == [3.0, 1.0, 2.0]


def test_arrays_are_their_own_unit(tmp_path: Path) -> None:
    img = image(20, 20)
    regions = AddRegionsd(kind="random", count=5, folder=tmp_path)({"image": img.numpy()})["regions"]
    assert regions.shape == (1, 20, 20) and regions.max() == 4 and spacing_of(img.as_tensor()) is None


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="min_sise"):
        AddRegionsd(min_sise=3)
    bad = image(8, 8, name="ct/broken.nii.gz")
    bad[0, 2, 2] = torch.nan
    with pytest.raises(DataError, match=r"'ct/broken.nii.gz' holds NaN"):
        AddRegionsd(folder=tmp_path)({"image": bad})
