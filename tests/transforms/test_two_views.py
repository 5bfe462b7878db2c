# SPDX-License-Identifier: Apache-2.0
"""Two views: image and regions stay together under every geometric transform, and each view follows from the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAffined,
    RandAxisFlipd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
    RandSpatialCropd,
    RandZoomd,
    Resized,
)

from fewlabel.errors import ConfigError
from fewlabel.transforms import TwoViewsd

BOTH = ["image", "regions"]
MODE: dict[str, Any] = {"mode": ["bilinear", "nearest"]}
ZEROS: dict[str, Any] = {**MODE, "padding_mode": "zeros"}
EXACT: dict[str, Any] = {"mode": ["area", "nearest-exact"]}
SIDE = 8

GEOMETRIC: dict[str, Callable[[int], Any]] = {
    "RandAffined": lambda d: RandAffined(
        BOTH, prob=1, rotate_range=[0.4] * d, translate_range=[5] * d, scale_range=[0.2] * d, shear_range=[0.1], **ZEROS
    ),
    "RandRotated": lambda d: RandRotated(BOTH, range_x=0.5, range_y=0.2, range_z=0.2, prob=1, **ZEROS),
    "RandZoomd": lambda d: RandZoomd(BOTH, prob=1, min_zoom=0.7, max_zoom=1.4, padding_mode="constant", **EXACT),
    "RandFlipd": lambda d: RandFlipd(BOTH, prob=0.5, spatial_axis=0),
    "RandAxisFlipd": lambda d: RandAxisFlipd(BOTH, prob=0.5),
    "RandRotate90d": lambda d: RandRotate90d(BOTH, prob=1, max_k=3),
    "RandSpatialCropd": lambda d: RandSpatialCropd(BOTH, [17] * d, random_size=False),
    "Resized": lambda d: Compose([RandSpatialCropd(BOTH, [17] * d), Resized(BOTH, [40] * d, **EXACT)]),
}


def checkerboard(dims: int) -> dict[str, MetaTensor]:
    """Cells of SIDE pixels: the label n of a cell, and 100 + n as its intensity."""
    shape = (1, *[4 * SIDE] * dims)
    cells = torch.arange(4**dims).view(1, *[4] * dims)
    for axis in range(1, dims + 1):
        cells = cells.repeat_interleave(SIDE, axis)
    assert cells.shape == shape
    return {"image": MetaTensor(cells.float() + 100), "regions": MetaTensor(cells.int())}


def views_of(name: str, dims: int) -> TwoViewsd:
    made = GEOMETRIC[name](dims)
    return TwoViewsd(made.transforms if isinstance(made, Compose) else [made])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_checkerboard_keeps_its_labels(name: str, dims: int) -> None:
    views, outside = views_of(name, dims), 0
    spread = torch.nn.functional.max_pool2d if dims == 2 else torch.nn.functional.max_pool3d
    for seed in range(3):
        item = views.set_random_state(seed=seed)(checkerboard(dims))
        for suffix in ("", "_2"):
            image, regions = (item[key + suffix].as_tensor() for key in BOTH)
            assert image.shape == regions.shape and regions.dtype == torch.int32
            cells = torch.where(image == 0, -1, (image - 100).round().int())
            inside = spread(image, 3, 1, 1) + spread(-image, 3, 1, 1) < 1e-3  # of a cell, or of what is outside
            assert torch.equal(regions[inside], cells[inside])
            assert inside.float().mean() > 0.15
            outside += int((regions == -1).sum())
    assert (outside > 0) == (name in ("RandAffined", "RandRotated", "RandZoomd"))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_every_pixel_is_within_half_a_pixel(name: str, dims: int) -> None:
    """The image holds where each pixel was, its regions too: one pixel each."""
    shape = [4 * SIDE] * dims
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).float()
    image = MetaTensor(torch.cat([places, torch.ones_like(places[:1])]))
    pixels = MetaTensor(torch.arange(places[0].numel(), dtype=torch.int32).view(1, *shape))
    item = views_of(name, dims).set_random_state(seed=0)({"image": image, "regions": pixels})
    for suffix in ("", "_2"):
        *moved, ones = item[f"image{suffix}"].as_tensor()
        regions = item[f"regions{suffix}"].as_tensor()[0].long()
        seen = (regions >= 0) & (ones > 1 - 1e-5)  # no part from outside
        assert seen.float().mean() > 0.2
        said = torch.stack(torch.unravel_index(regions.clamp(min=0), shape))
        assert (said - torch.stack(moved)).abs()[:, seen].max() < 0.501


def test_no_region_before_is_no_region_after() -> None:
    item = checkerboard(2)
    item["regions"][item["regions"] % 3 == 0] = -1
    out = views_of("RandAffined", 2).set_random_state(seed=1)(item)
    for suffix in ("", "_2"):
        image, regions = (out[key + suffix].as_tensor() for key in BOTH)
        exact = (image >= 100) & (image == image.round()) & (regions >= 0)
        assert exact.any() and bool((regions[regions >= 0] % 3 != 0).all())


def noisy() -> TwoViewsd:
    return TwoViewsd(
        [GEOMETRIC["RandAffined"](2), GEOMETRIC["RandFlipd"](2)],
        [RandGaussianNoised("image", prob=1), RandScaleIntensityd("image", 0.5, prob=1)],
    )


def test_views_follow_from_the_seed_alone_and_differ() -> None:
    views, item = noisy(), checkerboard(2)
    torch.manual_seed(0)
    first = Compose([views]).set_random_state(seed=5)(item)
    views(item)
    torch.manual_seed(1)
    again = Compose([noisy()]).set_random_state(seed=5)(item)
    other = Compose([noisy()]).set_random_state(seed=6)(item)
    for key in ("image", "regions", "image_2", "regions_2"):
        assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])
    assert not torch.equal(first["image"], first["image_2"])
    assert not torch.equal(first["regions"], first["regions_2"])


def test_photometry_leaves_regions_and_the_item_alone() -> None:
    item = checkerboard(2)
    item["name"] = "a"  # type: ignore[assignment]
    views = TwoViewsd([], [RandGaussianNoised("image", prob=1)])
    out = views.set_random_state(seed=0)(item)
    assert torch.equal(out["regions"], item["regions"]) and torch.equal(out["regions_2"], item["regions"])
    assert not torch.equal(out["image"], item["image"]) and out["name"] == "a"
    assert torch.equal(item["image"], checkerboard(2)["image"]) and "image_2" not in item


def test_images_alone() -> None:
    views = TwoViewsd([RandFlipd("image", 0.5)], regions_key=None)
    assert set(views({"image": torch.rand(1, 6, 6)})) == {"image", "image_2"}


def test_from_json() -> None:
    parser = ConfigParser(
        {
            "views": {
                "_target_": "fewlabel.transforms.TwoViewsd",
                "geometric": [{"_target_": "RandFlipd", "keys": BOTH, "prob": 0.5}],
                "photometric": [{"_target_": "RandScaleIntensityd", "keys": "image", "factors": 0.1}],
            }
        }
    )
    assert "regions_2" in parser.get_parsed_content("views")(checkerboard(2))


WRONG = [
    (RandFlipd("image", 0.5), r"RandFlipd leaves out 'regions'"),
    (RandFlipd("regions", 0.5), r"RandFlipd leaves out 'image'"),
    (RandAffined(BOTH, prob=1, padding_mode="zeros"), "RandAffined has mode 'bilinear' for 'regions': set 'nearest'"),
    (RandAffined(BOTH, prob=1, **MODE), "has padding_mode 'reflection' for 'regions': set 'zeros' or 'constant'"),
    (RandZoomd(BOTH, prob=1, **MODE), "RandZoomd has mode 'nearest' for 'regions': set 'nearest-exact'"),
    (RandZoomd(BOTH, prob=1, **EXACT), "RandZoomd has padding_mode 'edge'"),
    (Rand2DElasticd(BOTH, (9, 9), (1, 2), **MODE), "Rand2DElasticd has padding_mode 'reflection'"),
    (Resized(BOTH, [9, 9], mode="nearest"), "Resized has mode 'nearest'"),
]


@pytest.mark.parametrize(("transform", "message"), WRONG)
def test_what_parts_regions_from_the_image_is_refused(transform: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TwoViewsd([transform])


def test_other_mistakes() -> None:
    with pytest.raises(ConfigError, match="RandGaussianNoised changes 'regions'"):
        TwoViewsd([], [RandGaussianNoised(BOTH)])
    blurred = TwoViewsd([lambda item: {**item, "regions": item["regions"] * 0.5}])
    with pytest.raises(ConfigError, match="no regions"):
        blurred(checkerboard(2))
    several = TwoViewsd([RandCropByPosNegLabeld(BOTH, "regions", [8, 8], num_samples=2)])
    with pytest.raises(ConfigError, match="several samples"):
        several(checkerboard(2))
