# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from scipy import ndimage

from fewlabel.transforms import RandColorJitter, RandColorJitterd, RandGaussianBlur, RandGrayscale
from fewlabel.transforms.color import shift_hue


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))


def test_hue_is_a_shift_in_turns(image: torch.Tensor) -> None:
    jitter = RandColorJitter(hue=0.5).set_random_state(seed=5)
    out = jitter(image)
    (name, shift), *others = jitter._drawn
    assert name == "hue" and not others and abs(shift) > 0.05
    for i, j in [(0, 0), (4, 7), (8, 10)]:
        h, s, v = colorsys.rgb_to_hsv(*image[:, i, j].tolist())
        np.testing.assert_allclose(out[:, i, j], colorsys.hsv_to_rgb((h + shift) % 1, s, v), atol=1e-5)


@pytest.mark.parametrize("turns", [-0.5, -0.21, 0.0, 0.37, 0.5])
def test_hue_equals_torchvision(image: torch.Tensor, turns: float) -> None:
    image[:, 0] = torch.tensor([[0.0], [0.5], [1.0]])[:, [0]].expand(3, 11)
    image[:, 1] = 0.3  # gray stays gray
    image[:, 2, :3] = torch.eye(3)
    torch.testing.assert_close(shift_hue(image, turns), tvf.adjust_hue(image, turns), atol=1e-5, rtol=0)


def test_hue_covers_its_whole_range() -> None:
    jitter = RandColorJitter(hue=0.5).set_random_state(seed=0)
    shifts = []
    for _ in range(500):
        jitter.randomize()
        shifts.append(jitter._drawn[0][1])
    assert min(shifts) < -0.48 and max(shifts) > 0.48 and abs(np.mean(shifts)) < 0.05


def test_brightness_multiplies_and_clips(image: torch.Tensor) -> None:
    jitter = RandColorJitter(brightness=0.9, hue=0.0).set_random_state(seed=2)
    out = jitter(image)
    torch.testing.assert_close(out, (image * jitter._drawn[0][1]).clamp(0, 1))


def test_order_of_operations_varies_with_the_draw() -> None:
    jitter = RandColorJitter(0.4, 0.4, 0.4, 0.1).set_random_state(seed=0)
    orders = set()
    for _ in range(60):
        jitter.randomize()
        orders.add(tuple(name for name, _ in jitter._drawn))
    assert len(orders) > 10


def test_grayscale_is_luma_in_one_case_of_five(image: torch.Tensor) -> None:
    luma = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    out = RandGrayscale(prob=1.0)(image)
    torch.testing.assert_close(out, luma.expand(3, -1, -1), atol=2e-4, rtol=0)
    gray = RandGrayscale().set_random_state(seed=0)
    assert 70 < sum(bool((x[0] == x[1]).all()) for x in (gray(image) for _ in range(500))) < 130


def test_blur_is_a_gaussian_cut_to_three_pixels(image: torch.Tensor) -> None:
    blur = RandGaussianBlur(3, (1.3, 1.3))
    kernel = np.exp(-0.5 * (np.arange(-1, 2) / 1.3) ** 2)
    expected = ndimage.convolve(image.numpy(), np.outer(kernel, kernel)[None] / kernel.sum() ** 2, mode="mirror")
    np.testing.assert_allclose(blur(image), expected, atol=1e-5)


def test_blur_equals_torchvision(image: torch.Tensor) -> None:
    blur = RandGaussianBlur(5, (0.1, 2.0)).set_random_state(seed=0)
    for _ in range(3):
        out = blur(image)
        torch.testing.assert_close(out, tvf.gaussian_blur(image, [5, 5], [blur._drawn] * 2), atol=1e-5, rtol=0)


def test_one_draw_serves_all_keys(image: torch.Tensor) -> None:
    out = RandColorJitterd(["a", "b"], 0.5, 0.5, 0.5, 0.5).set_random_state(seed=1)({"a": image, "b": image.clone()})
    assert torch.equal(out["a"], out["b"]) and not torch.equal(out["a"], image)


def test_wrong_input_and_strength_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"received torch.uint8 \(3, 4, 4\)"):
        RandColorJitter()(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(1, 9, 11\)"):
        RandGaussianBlur()(image[:1])
    with pytest.raises(ValueError, match="odd kernel_size"):
        RandGaussianBlur(kernel_size=4)
    with pytest.raises(ValueError, match=r"hue <= 0.5"):
        RandColorJitter(hue=0.7)
