# SPDX-License-Identifier: Apache-2.0
"""Region maps: millimeters, body, slices, controls and disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from fewlabel.kernels import felzenszwalb as kernel
from fewlabel.superpixels import KINDS, RegionMap, region_map


def picture(*shape: int, seed: int = 0) -> Tensor:
    """A body of noise in air, in the units of CT."""
    noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))
    image = torch.from_numpy(ndimage.gaussian_filter(noise.numpy(), (0, *[1.0] * len(shape)))) * 400 - 160
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[(slice(None), *[slice(n // 6, n - n // 5) for n in shape])] = True
    return torch.where(inside, image, -1000.0)


def counts(labels: Tensor) -> Tensor:
    return torch.bincount(labels[labels >= 0].flatten().long())


def test_is_the_kernel_in_pixels(tmp_path: Path) -> None:
    image = picture(40, 50)
    got = region_map(
        image, spacing_mm=(2, 2), window=(-160, 240), scale=5, sigma_mm=3, min_size_mm2=40, folder=tmp_path
    )
    unit = ((image.double() + 160) / 400).clamp(0, 1)
    assert got.dtype == torch.int32 and got.shape == (1, 40, 50)
    assert torch.equal(got, kernel.felzenszwalb(unit[None], 5.0, 1.5, 10, (2.0, 2.0)).int())


def test_sizes_follow_the_spacing_of_each_item(tmp_path: Path) -> None:
    image, fine = picture(60, 60), RegionMap(min_size_mm2=36, window=(-160, 240), sigma_mm=0, folder=tmp_path)
    for spacing in (1.0, 2.0, 3.0):
        assert int(counts(fine(image, (spacing, spacing))).min()) >= 36 / spacing**2
    assert int(fine(image, (3.0, 3.0)).max()) > 2 * int(fine(image, (1.0, 1.0)).max())
    volume, coarse = picture(12, 20, 24), RegionMap(min_size_mm3=90, window=(-160, 240), folder=tmp_path)
    assert int(counts(coarse(volume, (3.0, 1.0, 1.0))).min()) >= 30
    assert int(coarse(volume, (3.0, 1.0, 1.0)).max()) > int(coarse(volume).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, -1])
def test_slices_are_pictures_with_regions_of_their_own(kind: str, axis: int, tmp_path: Path) -> None:
    volume = picture(5, 30, 26) if axis == 0 else picture(30, 26, 5)
    spacing = (7.0, 1.0, 1.5) if axis == 0 else (1.0, 1.5, 7.0)
    wanted = RegionMap(kind, 2, axis, (-160, 240), min_size_mm2=20, body={"threshold": -300}, folder=tmp_path)
    got = wanted(volume, spacing)[0]
    before = 0
    for n in range(5):
        part = got.select(axis, n)
        if kind != "random":
            one = wanted(volume.select(axis + 1 if axis == 0 else axis, n), (1.0, 1.5))[0]
            assert torch.equal(part, torch.where(one >= 0, one + before, -1))
        inside = part[part >= 0]
        if inside.numel():
            assert inside.unique().tolist() == list(range(before, int(inside.max()) + 1))
            before = int(inside.max()) + 1
    assert before > 20


@pytest.mark.parametrize("shape", [(40, 44), (14, 20, 22)])
@pytest.mark.parametrize("kind", KINDS)
def test_body_and_numbers(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    image = picture(*shape)
    found = region_map(
        image, kind, window=(-160, 240), min_size_mm2=15, min_size_mm3=40, body={"threshold": -300}, folder=tmp_path
    )
    assert torch.equal(found >= 0, image > -300)
    assert found[found >= 0].unique().tolist() == list(range(int(found.max()) + 1))
    assert int(found.max()) > 10


@pytest.mark.parametrize("dims", [2, 3])
def test_controls_have_as_many_regions_as_superpixels(dims: int, tmp_path: Path) -> None:
    volume = picture(8, 40, 40)
    wanted = RegionMap(
        dims=dims,
        slice_axis=0,
        window=(-160, 240),
        min_size_mm2=20,
        min_size_mm3=20,
        body={"threshold": -300},
        folder=tmp_path,
    )
    superpixels = int(wanted(volume).max()) + 1
    assert int(replace(wanted, kind="random")(volume).max()) + 1 == superpixels
    assert abs(int(replace(wanted, kind="grid")(volume).max()) + 1 - superpixels) < 0.1 * superpixels
    given = replace(wanted, kind="random", count=9)(volume)
    assert int(given.max()) + 1 == (9 if dims == 3 else 9 * int((given >= 0).any(-1).any(-1).sum()))


def test_random_follows_from_seed_and_image(tmp_path: Path) -> None:
    image = picture(30, 30)
    one = RegionMap("random", count=12, folder=tmp_path / "a")
    assert torch.equal(one(image), replace(one, folder=tmp_path / "b")(image))
    assert not torch.equal(one(image), replace(one, seed=1)(image))
    assert not torch.equal(one(image), one(picture(30, 30, seed=1)))


def test_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, wanted = picture(30, 32), RegionMap(min_size_mm2=9, body={"threshold": -300}, folder=tmp_path)
    assert not wanted.file(image).exists()
    first = wanted(image)
    assert wanted.file(image).is_file()
    monkeypatch.setattr(kernel, "felzenszwalb", None)
    assert torch.equal(wanted(image), first)
    assert torch.equal(wanted(image.mT.contiguous().mT.requires_grad_()), first)
    wanted.file(image).write_bytes(b"damaged")
    with pytest.raises(TypeError, match="NoneType"):
        wanted(image)


def test_every_setting_has_a_file_of_its_own(tmp_path: Path) -> None:
    image, base = picture(8, 9, 10), RegionMap(folder=tmp_path)
    changes: list[dict[str, Any]] = [
        {"kind": "grid"},
        {"kind": "random"},
        {"dims": 2},
        {"dims": 2, "slice_axis": 0},
        {"window": (0, 1)},
        {"scale": 2},
        {"sigma_mm": 2},
        {"min_size_mm2": 2},
        {"min_size_mm3": 2},
        {"count": 2},
        {"body": {"threshold": 0}},
        {"body": {"threshold": 0, "holes": "keep"}},
        {"seed": 2},
    ]
    files = {replace(base, **change).file(image) for change in changes}
    files |= {base.file(image), base.file(image + 1), base.file(image, (1, 1, 2))}
    assert len(files) == len(changes) + 3
    same = [replace(base, dims=3), replace(base, scale=1, sigma_mm=1.0), replace(base, folder=str(tmp_path))]
    assert {one.file(image) for one in same} == {base.file(image), base.file(image, [1, 1, 1])}
    assert replace(base, window=[0, 1]).file(image) == replace(base, window=(0.0, 1.0)).file(image)


def test_mistakes(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"kind": "slic"}, "felzenszwalb, grid, random, got 'slic'"),
        ({"dims": 4}, "dims must be 2, 3 or None"),
        ({"window": (1, 0)}, "window"),
        ({"min_size_mm2": -1}, "negative"),
        ({"body": {"treshold": 3}}, "a dictionary with a threshold, .*'treshold'"),
        ({"body": {"threshold": "air"}}, "a threshold, a number, .*'air'"),
        ({"body": {"threshold": 3, "holes": "all"}}, "holes must be one of slice, volume, keep"),
        ({"body": {"threshold": 3, "components": 0}}, "components at least 1"),
        ({"body": {"threshold": 3, "hole": "keep"}}, "holes, .* 'hole'"),
        ({"body": 3}, "a dictionary with a threshold, .* got 3"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            RegionMap(**settings)
    with pytest.raises(TypeError, match="min_size"):
        region_map(picture(8, 8), min_size=3)
    with pytest.raises(ValueError, match=r"a volume \(C, D, H, W\)"):
        region_map(picture(8, 8), dims=3)
    with pytest.raises(ValueError, match="2 finite numbers"):
        region_map(picture(8, 8), spacing_mm=(1, 1, 1))
    with pytest.raises(ValueError, match="finite"):
        region_map(torch.full((1, 8, 8), torch.nan), folder=tmp_path)
    assert not list(tmp_path.rglob("*.labels"))
