# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensityd

from fewlabel.transforms import IMAGENET_MEAN, IMAGENET_STD, RandGridMask, RandGridMaskd, grid_mask


def test_matches_a_pixel_by_pixel_version() -> None:
    height, width, period, ratio, offset, angle = 23, 31, 7.3, 0.4, (0.2, 0.9), 33.0
    keep = grid_mask((height, width), period, ratio, offset, angle)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    wrong = 0
    for i in range(height):
        for j in range(width):
            y, x = i - (height - 1) / 2, j - (width - 1) / 2
            u, v = (x * cos + y * sin) / period + offset[0], (y * cos - x * sin) / period + offset[1]
            wrong += bool(keep[i, j]) != (u % 1 < ratio or v % 1 < ratio)
    assert wrong == 0


def test_hides_the_papers_share_at_every_size() -> None:
    for size in [(288, 512), (288, 384), (96, 128)]:
        mask = RandGridMask(prob=1.0).set_random_state(seed=0)
        hidden = [1 - float(mask(torch.ones(1, *size)).mean()) for _ in range(200)]
        assert abs(np.mean(hidden) - 0.36) < 0.01, size


def test_straight_grid_has_square_cells() -> None:
    keep = grid_mask((40, 60), 10, 0.4).numpy()
    hidden_rows, hidden_columns = (~keep).any(1), (~keep).any(0)
    assert np.array_equal(~keep, np.outer(hidden_rows, hidden_columns))
    for hidden in (hidden_rows, hidden_columns):
        inner = np.diff(np.flatnonzero(np.diff(hidden.astype(int))))  # alternating lengths of runs
        assert set(inner.tolist()) == {4, 6}


def test_period_scales_with_the_width() -> None:
    small = RandGridMask(prob=1.0, rotate=(0, 0)).set_random_state(seed=3)(torch.ones(1, 72, 128))
    large = RandGridMask(prob=1.0, rotate=(0, 0)).set_random_state(seed=3)(torch.ones(1, 288, 512))
    assert float((large[:, ::4, ::4] != small).float().mean()) < 0.1
    fixed = RandGridMask(prob=1.0, rotate=(0, 0), reference_width=None).set_random_state(seed=3)(torch.ones(1, 72, 128))
    assert float((fixed != small).float().mean()) > 0.2


def test_mean_color_before_equals_zero_after_normalization() -> None:
    normalize = NormalizeIntensityd("image", subtrahend=IMAGENET_MEAN, divisor=IMAGENET_STD, channel_wise=True)
    item = {"image": torch.rand(3, 48, 64)}
    before = normalize(RandGridMaskd("image", prob=1.0, fill=IMAGENET_MEAN).set_random_state(seed=1)(item))["image"]
    after = RandGridMaskd("image", prob=1.0).set_random_state(seed=1)(normalize(item))["image"]
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert (after == 0).any()


def test_probability_and_untouched_input() -> None:
    mask = RandGridMask(prob=0.8).set_random_state(seed=0)
    image = torch.ones(3, 32, 32)
    masked = sum(bool((mask(image) == 0).any()) for _ in range(300))
    assert 210 <= masked <= 270 and bool((image == 1).all())


def test_bad_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="period_px > 0"):
        grid_mask((4, 4), 0)
    with pytest.raises(ValueError, match=r"ratio <= 1, received 5 and 1.5"):
        grid_mask((4, 4), 5, 1.5)
