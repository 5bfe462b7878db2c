# SPDX-License-Identifier: Apache-2.0
"""Semantic clusters against the steps of the released code written out, and on tiles whose nuclei are known."""

from __future__ import annotations

import pytest
import torch
from tests.pseudolabels.tiles import overlap, tissue
from torch import Tensor

from fewlabel.pseudolabels import (
    ClusterMeans,
    bluest,
    cluster_pixels,
    darkest,
    fused_features,
    hottest,
    jet,
    optical_density,
    released,
    semantic_clusters,
    stain_densities,
)

# Blue, green and red of OpenCV's table at a few levels, as it paints them.
JET = {0: (128, 0, 0), 1: (132, 0, 0), 31: (252, 0, 0), 33: (255, 4, 0), 96: (254, 255, 2), 154: (22, 255, 234),
       222: (0, 4, 255), 254: (0, 0, 132), 255: (0, 0, 128)}  # fmt: skip


def warm(nuclei: Tensor) -> Tensor:
    """A map that is high on nuclei, and noisy."""
    noise = torch.rand(nuclei.shape, generator=torch.Generator().manual_seed(1))
    return (0.6 * nuclei + 0.4 * noise)[None, None]


def test_jet() -> None:
    levels = torch.tensor([*JET]).view(1, 1, -1, 1)
    painted = (255 * jet((levels.double() + 0.5) / 255))[0, :, :, 0].T.round().int().tolist()
    assert painted == [list(colors) for colors in JET.values()]
    assert torch.equal(jet(torch.tensor([1.0]).view(1, 1, 1)), jet(torch.tensor([7.0]).view(1, 1, 1)))


@pytest.mark.parametrize("features", ["scalar", "sum", "released"])
def test_features(features: str) -> None:
    image, nuclei = tissue()
    heat = warm(nuclei)
    got = fused_features(image, heat, 0.5, features)
    if features == "scalar":
        expected = torch.stack([heat[0, 0], *(0.5 * image[0])])
    elif features == "sum":
        expected = heat[0] + 0.5 * image[0]
    else:  # channel 0 holds the blue of the map and the red of the image
        blue, green, red = jet(heat)[0]
        expected = torch.stack([blue + 0.5 * image[0, 0], green + 0.5 * image[0, 1], red + 0.5 * image[0, 2]])
    torch.testing.assert_close(got[0], expected)
    assert torch.equal(fused_features(image, None, 0.5, features), image)


@pytest.mark.parametrize("rule", ["darkest", "bluest"])
def test_finds_nuclei_by_color(rule: str) -> None:
    image, nuclei = tissue()
    mask = semantic_clusters(image, rule=rule)
    assert mask.shape == (1, 1, 56, 64) and mask.dtype == torch.uint8
    assert overlap(mask[0, 0], nuclei) > 0.97


def test_finds_nuclei_with_a_map() -> None:
    image, nuclei = tissue()
    for options in ({}, {"rule": "hottest"}, {"beta": 1.0, "rule": "released", "features": "released"}):
        assert overlap(semantic_clusters(image, warm(nuclei), **options)[0, 0], nuclei) > 0.9, options
    away = semantic_clusters(image, 1 - warm(nuclei), rule="hottest")[0, 0]
    assert overlap(away, nuclei) < 0.1
    assert overlap(semantic_clusters(image, 1 - warm(nuclei))[0, 0], nuclei) > 0.9  # the map has no say in the choice


def test_a_batch_is_its_images() -> None:
    pairs = [tissue(seed) for seed in range(3)]
    images, maps = torch.cat([image for image, _ in pairs]), torch.cat([warm(nuclei) for _, nuclei in pairs])
    together = semantic_clusters(images, maps)
    for b in range(3):
        assert torch.equal(together[b : b + 1], semantic_clusters(images[b : b + 1], maps[b : b + 1]))


def test_means_are_those_of_the_clusters() -> None:
    image, nuclei = tissue()
    labels, means = cluster_pixels(image, warm(nuclei), clusters=4)
    density, blue = optical_density(image).mean(1)[0], stain_densities(image)[0, 0]
    assert means.heat is not None
    for k in range(4):
        inside = labels[0, 0] == k
        assert float(means.density[0, k]) == pytest.approx(float(density[inside].mean()), rel=1e-5)
        assert float(means.hematoxylin[0, k]) == pytest.approx(float(blue[inside].mean()), rel=1e-5)
        assert float(means.heat[0, k]) == pytest.approx(float(warm(nuclei)[0, 0][inside].mean()), rel=1e-5)


def test_rules_choose_and_skip_empty_clusters() -> None:
    nan = torch.nan
    dark, blue, heat = (torch.tensor([v]) for v in ([0.1, nan, 0.9], [0.7, nan, 0.1], [0.2, nan, 0.1]))
    features = torch.tensor([[[1.0, 0.0, 9.0], [5.0, 5.0, 5.0], [0.2, 0.3, 9.0]]])
    means = ClusterMeans(dark, blue, heat, features)
    assert [int(rule(means)) for rule in (darkest, bluest, hottest, released)] == [2, 0, 0, 2]
    image, nuclei = tissue()
    flat = semantic_clusters(torch.full_like(image, 0.5))
    assert bool((flat == 1).all())  # one color: the only cluster that is not empty
    chosen = semantic_clusters(image, warm(nuclei), rule=lambda found: darkest(found))
    assert torch.equal(chosen, semantic_clusters(image, warm(nuclei)))


def test_mistakes() -> None:
    image, nuclei = tissue()
    with pytest.raises(ValueError, match="needs maps"):
        semantic_clusters(image, rule="hottest")
    with pytest.raises(ValueError, match="rule is 'brightest'"):
        semantic_clusters(image, rule="brightest")
    with pytest.raises(ValueError, match="features is 'jet'"):
        semantic_clusters(image, features="jet")
    with pytest.raises(ValueError, match="expected maps"):
        semantic_clusters(image, warm(nuclei)[..., 1:])
    with pytest.raises(ValueError, match=r"RGB images \(B, 3, H, W\)"):
        semantic_clusters(image[0])
