# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from monai.data import MetaTensor
from torchvision.transforms import InterpolationMode

from fewlabel.transforms import RandWarp, RandWarpd, warp, warp_matrix

H, W, PAD = 60, 92, 160


def smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) * 1.0, torch.arange(width) * 1.0, indexing="ij")
    waves = [torch.sin(x / 9 + y / 14), torch.cos(x / 12 - y / 8), torch.sin((x + 2 * y) / 20)]
    return torch.stack(waves) * 0.4 + 0.5


def step_by_step(image: torch.Tensor, drawn: dict, shift: tuple[int, int]) -> torch.Tensor:
    """The paper's steps one after the other with torchvision, on a canvas so large that nothing is cut."""
    bilinear = InterpolationMode.BILINEAR
    out = tvf.pad(image, [PAD])
    out = tvf.rotate(out, -drawn["rotate_first"], bilinear)
    out = tvf.vflip(out) if drawn["flip"][0] else out
    out = tvf.hflip(out) if drawn["flip"][1] else out
    out = tvf.affine(out, drawn["rotate"], [shift[1], shift[0]], drawn["scale"], [drawn["shear"], 0.0], bilinear)
    return out[:, PAD : PAD + H, PAD : PAD + W]


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_papers_steps(seed: int) -> None:
    r = np.random.RandomState(seed)
    drawn = {
        "rotate_first": r.uniform(-90, 90),
        "flip": (bool(seed & 1), bool(seed & 2)),
        "shear": r.uniform(-30, 30),
        "rotate": r.uniform(-90, 90),
        "scale": r.uniform(0.9, 1.2),
    }
    shift = (int(r.randint(-15, 16)), int(r.randint(-20, 21)))
    image = smooth(H, W)
    expected = step_by_step(image, drawn, shift)
    inside = step_by_step(torch.ones(1, H, W), drawn, shift)[0] > 0.999
    outside = step_by_step(torch.ones(1, H, W), drawn, shift)[0] < 1e-6
    out = warp(image, warp_matrix(translate_px=shift, **drawn))
    assert int(inside.sum()) > 300
    assert float((out - expected)[:, inside].abs().max()) < 0.02
    assert float(out[:, outside].abs().mean()) < 1e-3


def test_rotation_keeps_the_aspect_ratio() -> None:
    y, x = torch.meshgrid(torch.arange(H) - (H - 1) / 2, torch.arange(W) - (W - 1) / 2, indexing="ij")
    disk = (torch.hypot(y, x) < 20).float()[None]
    turned = warp(disk, warp_matrix(rotate=37.0), "nearest")
    assert int((turned != disk).sum()) < 0.06 * int(disk.sum())


def test_quarter_turn_is_exact() -> None:
    square = torch.rand(1, 33, 33)
    torch.testing.assert_close(
        warp(square, warp_matrix(rotate=90.0)), torch.rot90(square, -1, (1, 2)), atol=1e-4, rtol=0
    )
    wide = torch.rand(1, 20, 40)
    torch.testing.assert_close(warp(wide, warp_matrix(flip=(True, True))), wide.flip(1, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_labels_keep_values_and_dtype_and_outside_is_background(dtype: torch.dtype) -> None:
    label = torch.randint(1, 4, (1, H, W)).to(dtype)
    out = warp(label, warp_matrix(rotate=30.0, scale=0.5), "nearest")
    assert out.dtype == dtype and set(out.unique().tolist()) == {0, 1, 2, 3}
    assert int(out[0, 0, 0]) == 0


def test_image_and_label_move_together() -> None:
    label = (smooth(H, W)[:1] > 0.6).float()
    warpd = RandWarpd(["image", "label"], mode=["bilinear", "nearest"], translate=(0.2, 0.2)).set_random_state(seed=5)
    for _ in range(5):
        out = warpd({"image": label.expand(3, -1, -1), "label": label})
        assert float((out["image"][:1] - out["label"]).abs().mean()) < 0.08
        assert set(out["label"].unique().tolist()) <= {0.0, 1.0}


def test_missing_mask_passes_with_the_same_draw() -> None:
    keys = {"keys": ["image", "label"], "mode": ["bilinear", "nearest"], "allow_missing_keys": True}
    image = smooth(H, W)
    with_mask = RandWarpd(**keys).set_random_state(seed=2)({"image": image, "label": image[:1]})
    alone = RandWarpd(**keys).set_random_state(seed=2)({"image": image})
    assert torch.equal(with_mask["image"], alone["image"]) and "label" not in alone


def test_metadata_stays_and_input_is_left_alone() -> None:
    image = MetaTensor(smooth(H, W), meta={"filename_or_obj": "a.png"})
    before = image.clone()
    out = RandWarp().set_random_state(seed=0)(image)
    assert isinstance(out, MetaTensor) and out.meta["filename_or_obj"] == "a.png" and torch.equal(image, before)
    assert isinstance(RandWarp()(np.ones((1, 5, 6), np.float32)), np.ndarray)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\), received \(5, 6\)"):
        warp(torch.ones(5, 6), warp_matrix())
