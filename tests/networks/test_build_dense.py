# SPDX-License-Identifier: Apache-2.0
"""Dense networks by one word: every architecture in both dimensions, and one sentence per mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fewlabel.errors import ConfigError
from fewlabel.networks import DualUNet, dense_unet

KINDS: dict[str, dict[str, Any]] = {
    "dynunet": {"channels": (8, 8, 16)},
    "basic_unet": {"channels": (8, 8, 8, 8, 16)},
    "flexible_unet": {"channels": (16, 8, 8, 8, 4), "options": {"backbone": "resnet10"}},
}


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("architecture", KINDS)
def test_every_architecture_gives_logits(architecture: str, dims: int, dual: bool) -> None:
    network = dense_unet(3, architecture, dims, dual=dual, **KINDS[architecture])
    assert isinstance(network, DualUNet) == dual
    assert network(torch.rand(2, 1, *[32] * dims)).shape == (2, 3, *[32] * dims)


@pytest.mark.parametrize("architecture", ["dynunet", "basic_unet"])
def test_no_layer_mixes_the_items_of_a_batch(architecture: str) -> None:
    network = dense_unet(2, architecture, 2, **KINDS[architecture])
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    x = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architecture": "unet"}, "architecture 'unet' is none of dynunet, basic_unet, flexible_unet"),
        ({"spatial_dims": 4}, "spatial_dims is 4"),
        ({"channels": (8, 12, 16)}, "channels .8, 12, 16. .*num_channels"),
        ({"options": {"strides": [2, 2, 2]}, "channels": (8, 8, 8)}, "strides"),
        ({"options": {"depth": 3}}, "unexpected keyword argument 'depth'"),
    ],
)
def test_mistakes_are_one_sentence(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        dense_unet(2, **keys)
    assert "\n" not in str(error.value)
