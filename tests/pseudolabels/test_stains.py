# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color, data
from tests.pseudolabels.tiles import DAB, EOSIN, HEMATOXYLIN, disks, stained

from fewlabel.pseudolabels import optical_density, stain_classes, stain_densities


def picture() -> torch.Tensor:
    return torch.from_numpy(data.immunohistochemistry()[:64, :80]).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("clip", [True, False])
def test_equals_scikit_image(clip: bool) -> None:
    image = picture()
    rgb = image[0].permute(1, 2, 0).double().numpy()
    unclipped = np.log(np.maximum(rgb, 1e-6)) / np.log(1e-6) @ color.hed_from_rgb
    expected = color.rgb2hed(rgb) if clip else unclipped
    got = stain_densities(image.double(), "ruifrok", darkest=1e-6, clip=clip)[0].permute(1, 2, 0) / 6
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-9)
    close = stain_densities(image, color.rgb_from_hed.tolist(), darkest=1e-6, clip=clip)[0].permute(1, 2, 0) / 6
    np.testing.assert_allclose(close.numpy(), expected, atol=1e-5)


def test_amounts_come_back() -> None:
    amounts = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0)) / 3
    image = stained(*zip(amounts, (HEMATOXYLIN, EOSIN, DAB), strict=True), noise=0)
    torch.testing.assert_close(stain_densities(image, darkest=1e-4)[0], amounts, atol=1e-5, rtol=0)
    volume = image[..., None].expand(-1, -1, -1, -1, 2)
    torch.testing.assert_close(stain_densities(volume, darkest=1e-4)[0, ..., 1], amounts, atol=1e-5, rtol=0)


def test_density_of_black_and_glass() -> None:
    x = torch.tensor([0.0, 1 / 255, 1.0, 1.2], dtype=torch.float64)
    assert optical_density(x).tolist() == pytest.approx([np.log10(255), np.log10(255), 0, 0])
    assert stain_densities(torch.full((1, 3, 2, 2), 0.5, dtype=torch.bfloat16)).dtype == torch.float32


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"RGB images \(B, 3"):
        stain_densities(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="vectors is 'macenko'"):
        stain_densities(picture(), "macenko")
    for wrong in ([[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]]):
        with pytest.raises(ValueError, match="3 independent rows"):
            stain_densities(picture(), wrong)


BROWN, BLUE = ((12, 14), (40, 20)), ((14, 44), (44, 50))


def immuno(brown: tuple[tuple[int, int], ...], blue: tuple[tuple[int, int], ...]) -> torch.Tensor:
    empty = torch.zeros(56, 64)
    positive, negative = (disks(c).float() if c else empty for c in (brown, blue))
    stroma = 0.06 * disks(((28, 32),), radius=24)
    return stained((stroma + 0.5 * negative, HEMATOXYLIN), (0.6 * positive, DAB), noise=0.01)


def test_positive_and_negative_nuclei() -> None:
    masks = stain_classes(immuno(BROWN, BLUE))
    assert masks.shape == (1, 2, 56, 64) and masks.dtype == torch.uint8
    assert torch.equal(masks[0, 0] == 1, disks(BROWN)) and torch.equal(masks[0, 1] == 1, disks(BLUE))
    maps = torch.rand(1, 1, 56, 64, generator=torch.Generator().manual_seed(0)) / 10
    assert torch.equal(stain_classes(immuno(BROWN, BLUE), maps)[0, 0] == 1, disks(BROWN))


def test_a_tile_of_one_class() -> None:
    blue = stain_classes(immuno((), BLUE + BROWN))[0]
    assert torch.equal(blue[1] == 1, disks(BLUE + BROWN)) and not blue[0].any()
    both = stain_classes(immuno((), BLUE + BROWN), min_gap=-1)[0]
    assert both[0].any() and both[1].any()
    shades = stained((0.9 * disks(BROWN) + 0.8 * disks(BLUE), DAB), noise=0.005)
    brown = stain_classes(shades, min_gap=0.3)[0]
    assert torch.equal(brown[0] == 1, disks(BROWN)) and not brown[1].any()


def test_classes_need_three_clusters() -> None:
    with pytest.raises(ValueError, match="at least 3 clusters"):
        stain_classes(picture(), clusters=2)
