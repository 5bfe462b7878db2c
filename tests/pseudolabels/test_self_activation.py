# SPDX-License-Identifier: Apache-2.0
"""The self-activation map against the steps of the paper and of the released code, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import Tensor, nn

from fewlabel.pseudolabels import activation_maps, self_activation_map

LAYERS = ["0", "2"]
ORDER = "minmax_then_mean"


def network() -> nn.Sequential:
    torch.manual_seed(4)
    body = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 1))


def images(batch: int = 2) -> Tensor:
    coarse = torch.rand(batch, 1, 4, 6, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1)
    return nn.functional.interpolate(coarse, (33, 65), mode="bicubic").clamp(0, 1)


def minmax(m: np.ndarray) -> np.ndarray:
    shifted = m - m.min()
    return np.asarray(shifted / shifted.max())


@pytest.mark.parametrize("order", ["relu_then_minmax", "minmax_then_mean"])
def test_against_the_steps(order: str) -> None:
    net, x = network(), images()
    layers = [maps.numpy() for maps in activation_maps(net, x, LAYERS, 0, positive=False)]
    got = self_activation_map(net, x, LAYERS, order=order)
    assert got.shape == (2, 1, 33, 65)
    for i in range(2):
        parts = []
        for maps in layers:
            m = maps[i, 0]
            m = minmax(np.maximum(m, 0) if order == "relu_then_minmax" else m)
            parts.append(resize(m, (33, 65), order=1, mode="edge", anti_aliasing=False))
        expected = minmax(np.mean([np.maximum(m, 0) for m in parts], axis=0))
        np.testing.assert_allclose(got[i, 0].numpy(), expected, atol=1e-5)
        assert got[i].min() == 0
        assert got[i].max() == 1


@pytest.mark.parametrize("order", ["relu_then_minmax", "minmax_then_mean"])
def test_toward_makes_the_sign_of_the_score_irrelevant(order: str) -> None:
    net, x = network(), images()
    toward = -x.mean(dim=1, keepdim=True).clamp(min=1e-3).log()
    one, other = (
        self_activation_map(net, x, LAYERS, lambda z, sign=sign: sign * z[:, 0], order, toward) for sign in (1, -1)
    )
    torch.testing.assert_close(one, other)
    away = self_activation_map(net, x, LAYERS, 0, order, -toward)
    flat = [np.corrcoef(m.flatten(), toward.flatten())[0, 1] for m in (one, away)]
    assert flat[0] > 0 > flat[1]
    if order == "minmax_then_mean":
        torch.testing.assert_close(one, 1 - away)


def test_a_network_that_sees_nothing_gives_zeros() -> None:
    net = network()
    net[6].weight.data.zero_()
    assert not self_activation_map(net, images(), LAYERS).any()


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="order is 'mean'"):
        self_activation_map(network(), images(), LAYERS, order="mean")


def test_a_margin_keeps_the_padding_out_of_the_map() -> None:
    """A filter that sums its window answers at borders to nothing but the zeros around the image."""
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(net[0].weight, -1.0)
    x = torch.full((1, 1, 16, 20), 0.5)
    x[..., 5:9, 7:12] = 0.4
    bare, framed = (self_activation_map(net, x, ["0"], lambda z: z[:, 0], ORDER, margin_px=m) for m in (0, 4))
    assert bare[0, 0, 0, 0] == 1 and bare[0, 0, 7, 9] < 0.5
    assert framed[0, 0, 7, 9] == 1 and framed[0, 0, 0, 0] == 0
    assert framed.shape == bare.shape == x.shape


def test_maps_stay_in_place_with_a_margin() -> None:
    x = images(1)
    one, other = (self_activation_map(network(), x, ["0"], order=ORDER, margin_px=m)[..., 4:-4, 4:-4] for m in (0, 5))
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.99
