# SPDX-License-Identifier: Apache-2.0
"""The contrast of sampled pixels, against loops over pairs and against what sampling promises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fewlabel.errors import ConfigError
from fewlabel.losses import RegionContrastLoss, RegionPoints, gather_points


def maps(seed: int, shape: tuple[int, ...] = (3, 24, 20), count: int = 7) -> Tensor:
    """Random blocks of four pixels; an eighth belongs to no region."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(-1, count, (shape[0], *(-(-n // 4) for n in shape[1:])), generator=generator)
    for axis in range(1, len(shape)):
        coarse = coarse.repeat_interleave(4, dim=axis)
    return coarse[tuple(slice(n) for n in shape)].int()


def features(seed: int, shape: tuple[int, ...] = (3, 5, 24, 20)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def looped(loss: RegionContrastLoss, z: list[Tensor], points: RegionPoints) -> Tensor:
    """The mean over all pairs, each written out: first view the query, second the key."""
    flat = [f.flatten(2) / f.flatten(2).square().sum(1, keepdim=True).sqrt() for f in z]
    regions = [(b, r) for b, r in itertools.product(*map(range, points.valid.shape)) if points.valid[b, r]]

    def keys(b: int, r: int) -> list[Tensor]:
        drawn = [flat[1][b, :, p] for p in points.pixels_2[b, r]]
        if loss.positives == "points":
            return drawn
        mean = torch.stack(drawn).mean(0)
        return [mean / mean.square().sum().sqrt()]

    values = []
    for b, r in regions:
        others = [o for o in regions if o != (b, r) and (loss.negatives == "batch" or o[0] == b)]
        if not others:
            continue
        for p in points.pixels[b, r]:
            q = flat[0][b, :, p]
            mass = sum(torch.exp(q @ k / loss.temperature) for other in others for k in keys(*other))
            values += [torch.log(1 + mass * torch.exp(-(q @ k) / loss.temperature)) for k in keys(b, r)]
    return torch.stack(values).mean()


@pytest.mark.parametrize("positives", ["points", "pooled"])
@pytest.mark.parametrize("negatives", ["image", "batch"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_values_and_gradients_of_a_loop_over_all_pairs(positives: str, negatives: str, symmetric: bool) -> None:
    loss = RegionContrastLoss(4, 3, temperature=0.3, positives=positives, negatives=negatives, symmetric=symmetric)
    regions, regions_2 = maps(0), maps(1)
    regions_2[1][regions_2[1] > 2] = -1  # two or three regions in common: padding
    points = loss.sample(regions, regions_2, seed=3)
    assert not points.valid.all() and (points.valid.sum(1) > 1).all()
    z = [features(0), features(1)]
    found = loss(*(gather_points(f, p) for f, p in zip(z, points[:2], strict=True)), points.valid)["loss"]
    expected = looped(loss, [z[0], z[1].detach()] if symmetric else z, points)
    if symmetric:
        back = RegionPoints(points.pixels_2, points.pixels, points.valid)
        expected = (expected + looped(loss, [z[1], z[0].detach()], back)) / 2
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, z), torch.autograd.grad(expected, z))


@pytest.mark.parametrize("shape", [(2, 24, 20), (2, 8, 12, 8)])
def test_samples_lie_in_their_region_in_both_views(shape: tuple[int, ...]) -> None:
    loss = RegionContrastLoss(regions=5, points=6, min_pixels=8)
    views = maps(0, shape, count=12), maps(1, shape, count=12)
    points = loss.sample(*views, seed=0)
    first, second = (v.flatten(1).gather(1, p.flatten(1)).view(p.shape) for v, p in zip(views, points, strict=False))
    assert points.valid.any()
    labels = first[points.valid]
    assert (labels >= 0).all() and (labels == labels[:, :1]).all() and (second[points.valid] == labels).all()
    for b in range(len(labels) and shape[0]):
        mine = first[b, points.valid[b], 0].tolist()
        enough = {i for i in range(12) if min(int((v[b] == i).sum()) for v in views) >= 8}
        assert len(set(mine)) == len(mine) == min(5, len(enough)) and set(mine) <= enough


def test_seed_decides_and_views_are_drawn_apart() -> None:
    loss, views = RegionContrastLoss(regions=4, points=8), (maps(0), maps(0))
    once, again, other = (loss.sample(*views, seed=s) for s in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once.pixels, other.pixels) and not torch.equal(once.pixels, once.pixels_2)


def test_numbers_of_regions_do_not_matter() -> None:
    loss = RegionContrastLoss(regions=3, points=4)
    views = maps(0, count=9), maps(1, count=9)
    name = torch.randperm(9, generator=torch.Generator().manual_seed(1)) * 70_001
    renamed = [torch.where(v >= 0, name[v.clamp(min=0).long()], -5) for v in views]
    points, same = loss.sample(*views, seed=1), loss.sample(renamed[0], renamed[1], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(points, same, strict=True))
    order = torch.tensor([2, 0, 1])
    q, k = (gather_points(features(i), points[i]) for i in (0, 1))
    moved = loss(q[:, order], k[:, order], points.valid[:, order])["loss"]
    torch.testing.assert_close(moved, loss(q, k, points.valid)["loss"])


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_one_region_in_all_gives_zero_and_no_nan(negatives: str) -> None:
    loss = RegionContrastLoss(regions=4, points=3, negatives=negatives)
    regions = torch.full((2, 12, 10), -1)
    regions[0] = 3
    points = loss.sample(regions, regions, seed=0)
    z = features(0, (2, 5, 12, 10))
    terms = loss(gather_points(z, points.pixels), gather_points(z.detach(), points.pixels_2), points.valid)
    terms["loss"].backward()
    assert terms["loss"] == 0 and torch.equal(z.grad, torch.zeros_like(z))
    assert terms["valid_regions"] == 0.5 and all(t.isfinite() for t in terms.values())


def test_nothing_in_common_gives_zero_and_spreads_the_pixels() -> None:
    loss = RegionContrastLoss(regions=2, points=3)
    nowhere = torch.full((1, 6, 4), -1)
    for views in ((nowhere, nowhere), (maps(0, (1, 6, 4)) * 2, maps(0, (1, 6, 4)) * 2 + 1)):
        points = loss.sample(*views, seed=0)
        assert not points.valid.any() and points.pixels.flatten().tolist() == [0, 4, 8, 12, 16, 20]
    z = gather_points(features(0, (1, 5, 6, 4)), points.pixels)
    assert [t.item() for t in loss(z, z, points.valid).values()] == [0, 0, 0]


def test_images_with_fewer_than_two_regions_contribute_nothing() -> None:
    loss = RegionContrastLoss(regions=4, points=3)
    regions = maps(0)
    regions[1], regions[2] = 0, -1
    points = loss.sample(regions, regions, seed=0)
    z = features(0)
    found = loss(gather_points(z, points.pixels), gather_points(features(1), points.pixels_2), points.valid)["loss"]
    found.backward()
    assert z.grad[0].any() and not z.grad[1:].any()
    first = loss(*(gather_points(features(i)[:1], points[i][:1]) for i in (0, 1)), points.valid[:1])["loss"]
    torch.testing.assert_close(found, first)


def test_constant_keys_leave_the_gradient_to_the_query() -> None:
    loss = RegionContrastLoss(regions=4, points=3)
    points = loss.sample(maps(0), maps(1), seed=0)
    z = [features(0), features(1)]
    q, k = (gather_points(z[i], points[i]) for i in (0, 1))
    loss(q, k.detach(), points.valid)["loss"].backward()
    assert z[0].grad.any() and z[1].grad is None


@pytest.mark.parametrize("positives", ["points", "pooled"])
def test_diagnostics(positives: str) -> None:
    loss = RegionContrastLoss(regions=3, points=2, positives=positives)
    z = torch.eye(3)[None, :, None].repeat(1, 1, 2, 1)  # equal within a region, orthogonal to all others
    terms = loss(2 * z, -3 * z, torch.tensor([[True, True, False]]))
    assert terms["positive_similarity"].item() == pytest.approx(-1) and terms["valid_regions"] == 2
    keys = 2 if positives == "points" else 1
    assert terms["loss"].item() == pytest.approx(math.log(1 + keys * math.exp(10)), rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    loss = RegionContrastLoss(regions=4, points=3)
    points = loss.sample(maps(0), maps(1), seed=0)
    q, k = (gather_points(features(i), points[i]).bfloat16() for i in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(q, k, points.valid)["loss"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(q.float(), k.float(), points.valid)["loss"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_points_are_read_in_any_layout(layout: Any) -> None:
    z, pixels = features(0), torch.randint(0, 480, (3, 2, 4))
    made = z.contiguous(memory_format=layout)
    rows = gather_points(made, pixels)
    assert all(
        torch.equal(rows[b, r, k], z[b, :, pixels[b, r, k] // 20, pixels[b, r, k] % 20])
        for b, r, k in itertools.product(range(3), range(2), range(4))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": 1}, "regions of the region contrast is 1: give 2"),
        ({"points": 0}, "points of the region contrast is 0"),
        ({"min_pixels": 0}, "min_pixels of the region contrast is 0"),
        ({"temperature": 0}, "temperature of the region contrast is 0"),
        ({"positives": "means"}, "'means' is neither points nor pooled"),
        ({"negatives": "all"}, "'all' is neither image nor batch"),
    ],
)
def test_options_out_of_range(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionContrastLoss(**options)


def test_views_must_have_one_shape() -> None:
    with pytest.raises(ValueError, match=r"\(3, 24, 20\) and \(3, 20, 24\)"):
        RegionContrastLoss().sample(maps(0), maps(0).mT, seed=0)
