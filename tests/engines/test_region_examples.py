# SPDX-License-Identifier: Apache-2.0
"""Pictures of pre-training on regions show what the sampler draws and what each network says; no label is opened."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.inferers import SlidingWindowInferer
from PIL import Image
from tests.report.folders import Page, trained

from fewlabel.data import Splits
from fewlabel.engines import RegionExamples
from fewlabel.engines.region_panels import ShownSlice
from fewlabel.errors import ConfigError
from fewlabel.losses import RegionContrastLoss
from fewlabel.networks import DenseUNet, dense_unet
from fewlabel.report import write

ALL = ["image", "superpixels", "sampling", "features_before", "features_after", "result"]
SHAPES = {2: (40, 24), 3: (20, 16, 12)}
ROI = {2: (16, 16), 3: (8, 8, 8)}


def build(dims: int) -> DenseUNet:
    network = dense_unet(3, spatial_dims=dims, channels=(8, 8, 8))
    assert isinstance(network, DenseUNet)
    return network


def item(dims: int, seed: int = 0) -> dict[str, Any]:
    """A body with a margin of two, in cubes of four voxels."""
    shape = SHAPES[dims]
    places = torch.meshgrid(*(torch.arange(n) // 4 for n in shape), indexing="ij")
    regions = sum(place * 100**axis for axis, place in enumerate(places))
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[tuple(slice(2, n - 2) for n in shape)] = True
    image = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * inside
    affine = torch.eye(4)
    return {
        "image": MetaTensor(image[None], affine=affine),
        "regions": MetaTensor(torch.where(inside, regions, -1)[None], affine=affine),
    }


def make(folder: Path, dims: int = 3, stages: bool = True, **options: Any) -> RegionExamples:
    """Five images; ``stages``: both trainings have left their weights."""
    data = Dataset([{"image": str(folder / f"p{n}.nii.gz"), "number": n} for n in range(5)])
    data.transform = lambda entry: item(dims, entry["number"])
    if stages:
        torch.manual_seed(7)
        torch.save({"state_dict": build(dims).trunk_state_dict(), "recipe": {}}, folder / "pretrained.pt")
        torch.save(build(dims).state_dict(), folder / "model.pt")
        options = {
            "loss": RegionContrastLoss(4, 6, min_pixels=2),
            "build": lambda: build(dims),
            "pretrained": folder / "pretrained.pt",
            "network": build(dims),
            "ckpt_dir": folder,
        } | options
    names = ["background", "liver", "spleen"]
    return RegionExamples(folder, data, SlidingWindowInferer(ROI[dims], 2), class_names=names, size_px=64, **options)


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "examples" / "stages" / name)).astype(int)


@pytest.mark.parametrize("dims", [2, 3])
def test_all_panels_and_their_section_of_the_report(dims: int, tmp_path: Path) -> None:
    examples = make(tmp_path, dims)
    state = torch.get_rng_state()
    examples.run()
    assert torch.equal(torch.get_rng_state(), state), "pictures change no random number of what comes after"
    index = json.loads((tmp_path / "examples" / "stages" / "index.json").read_text())
    assert [entry["case"] for entry in index["examples"]] == ["p0.nii.gz", "p2.nii.gz", "p4.nii.gz"]
    assert all(list(entry["files"]) == ALL for entry in index["examples"])
    assert index["examples"][0]["slice"] == (None if dims == 2 else [6, 12])
    shown = {panel: pixels(tmp_path, f"1_{panel}.jpg") for panel in ALL}
    height, width = (n - 4 for n in reversed(SHAPES[dims][:2]))
    assert all(picture.shape == (round(64 * height / width), 64, 3) for picture in shown.values())
    for one, other in pairwise(ALL):
        assert abs(shown[one] - shown[other]).mean() > 2, f"{one} and {other} are alike"
    page = Page(write(trained(tmp_path)).read_text(encoding="utf-8"))
    assert "features, untrained features, pre-trained result" in page.text and "three principal components" in page.text
    assert ("p2.nii.gz, slice 7 of 12" in page.text) == (dims == 3)
    assert len(page.attributes("img", "alt")) == 18 and "liver spleen" in page.text


def test_stages_that_are_not_there_have_no_panels(tmp_path: Path) -> None:
    make(tmp_path, pretrained="", loss=None).run()
    index = json.loads((tmp_path / "examples" / "stages" / "index.json").read_text())
    assert list(index["examples"][0]["files"]) == ["image", "result"]
    make(tmp_path, stages=False).run()
    assert list((tmp_path / "examples" / "stages").iterdir()) == [], "nor pictures of an earlier run"


@pytest.mark.parametrize("dims", [2, 3])
def test_drawn_voxels_lie_in_drawn_regions_of_the_patch(dims: int, tmp_path: Path) -> None:
    examples = make(tmp_path, dims)
    regions = item(dims)["regions"][0].int().as_subclass(torch.Tensor)
    marks = examples._sampled(regions, [n // 2 for n in SHAPES[dims]])
    chosen, points, frame = (marks[name][0] for name in ("chosen", "points", "frame"))
    if dims == 3:
        assert (points == points[..., :1]).all()
        points, chosen, frame = points[..., 6], chosen[..., 4:9].amax(dim=-1), frame[..., 6]
    drawn = chosen[points > 0]
    assert set(points.unique().tolist()) == {0, 1, 2}, "both views"
    assert (drawn > 0).all() and (frame[chosen > 0] == 1).all() and int(frame.sum()) == ROI[dims][0] ** 2
    if dims == 2:
        expected = examples.loss.sample(*[regions[12:28, 4:20].contiguous()[None]] * 2, examples.seed)  # type: ignore[union-attr]
        assert int(chosen.max()) == int(expected.valid.sum()) == 4
        places = torch.unravel_index(expected.pixels_2.flatten(), (16, 16))
        assert (points[12:28, 4:20][places] == 2).all(), "what the loss draws, with its own numbers"


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_those_of_the_windows_that_hold_the_slice(dims: int, tmp_path: Path) -> None:
    network, image = build(dims).eval(), item(dims)["image"].as_subclass(torch.Tensor)
    examples = make(tmp_path, dims)
    examples.inferer = SlidingWindowInferer(SHAPES[dims], 1)
    with torch.no_grad():
        found = examples._dense(image, [5] if dims == 3 else [], network)
        whole = network.decode(network.encode(image[None]))[0]
    torch.testing.assert_close(found, whole[..., 5] if dims == 3 else whole)


def test_a_neck_above_wide_shoulders_fills_the_picture(tmp_path: Path) -> None:
    neck = item(3)
    neck["regions"][:, :5, :, 3:] = neck["regions"][:, 11:, :, 3:] = -1
    examples = make(tmp_path, count=1)
    examples.dataset.transform = lambda entry: neck
    examples.run()
    assert pixels(tmp_path, "1_image.jpg").shape == (64, 32, 3), "6 of the 16 columns that the shoulders take, 12 rows"


def test_short_volumes_are_padded(tmp_path: Path) -> None:
    examples = make(tmp_path)
    with torch.no_grad():
        assert examples._dense(torch.rand(1, 20, 16, 3), [1], build(3)).shape == (8, 20, 16)


def test_slices_look_as_radiologists_know_them() -> None:
    image = torch.zeros(4, 6)
    image[0, 5] = 1  # left and front, as axes run to the right and to the front
    right_front = ShownSlice({"image": image, "regions": image.int()}, {}, affine=torch.eye(4))
    panel = right_front.panels(6)["image"]
    assert panel.shape == (6, 4, 3) and panel[0, 3].mean() > 200, "above, and on the right of the picture"
    plain = ShownSlice({"image": image, "regions": image.int()}, {}).panels(6)["image"]
    assert plain[5, 0].mean() > 200, "pictures stay as they are"


def test_labels_stay_closed(tmp_path: Path) -> None:
    label = tmp_path / "label.nii.gz"
    label.write_bytes(b"")
    examples = make(tmp_path, splits=Splits((), (), (), held_back={str(label): "p0, which nobody may open"}))
    examples.dataset.transform = lambda entry: label.read_bytes()
    with pytest.raises(ConfigError, match="p0, which nobody may open"):
        examples.run()
