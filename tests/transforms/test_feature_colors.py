# SPDX-License-Identifier: Apache-2.0
"""Principal components as colors: what is alike stays alike, with one basis and a fixed sign."""

from __future__ import annotations

import torch

from fewlabel.transforms.feature_colors import feature_colors


def features(seed: int, channels: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, 3, generator=torch.Generator().manual_seed(0))
    return (mix * torch.tensor([5.0, 2.0, 1.0])) @ torch.randn(3, 80, generator=generator)


def test_three_latent_components_are_found_up_to_scale() -> None:
    maps = [features(1), features(2)]
    masks = [torch.arange(80) < 70] * 2
    colors = feature_colors(maps, masks, percentiles=(0, 100))
    points = torch.cat([m[:, :70] for m in maps], dim=1).double()
    found = torch.cat([c[:, :70] for c in colors], dim=1).double()
    _, _, right = torch.linalg.svd(points - points.mean(dim=1, keepdim=True))
    correlation = torch.corrcoef(torch.cat([found, right[:3]]))[:3, 3:].abs()
    torch.testing.assert_close(correlation, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert found.amin(dim=1).tolist() == [0, 0, 0] and found.amax(dim=1).tolist() == [1, 1, 1]
    assert all((c[:, 70:] == 0).all() for c in colors), "black where nothing counts"


def test_equal_features_have_equal_colors_in_all_images() -> None:
    one, other = features(1), features(2)
    other[:, 0] = one[:, 3]
    a, b = feature_colors([one, other], [torch.ones(80, dtype=torch.bool)] * 2)
    assert torch.equal(a[:, 3], b[:, 0])


def test_outliers_do_not_take_the_scale() -> None:
    wild = features(1)
    wild[:, 0] *= 1e6
    (colors,) = feature_colors([wild], [torch.ones(80, dtype=torch.bool)], percentiles=(5, 95))
    assert colors[0, 1:].std() > 0.1


def test_sign_scale_of_channels_and_degenerate_input() -> None:
    full = torch.ones(80, dtype=torch.bool)
    first = feature_colors([features(1)], [full])[0]
    assert torch.equal(first, feature_colors([features(1)], [full])[0])
    torch.testing.assert_close(first, feature_colors([3 * features(1) + 1], [full])[0])
    assert (feature_colors([torch.ones(4, 80)], [full])[0] == 0).all(), "nothing varies"
    assert (feature_colors([features(1)], [~full])[0] == 0).all(), "nothing counts"
    few = feature_colors([features(1, channels=2)], [full])[0]
    assert few.shape == (3, 80) and (few[2] == 0).all() and few[1].std() > 0
