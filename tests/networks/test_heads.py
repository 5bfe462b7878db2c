# SPDX-License-Identifier: Apache-2.0
"""Projector and classifier: sizes and parameter counts of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabel.networks import Classifier, Projector


@pytest.mark.parametrize(
    ("head", "parameters", "channels", "stride"), [(Projector, 1568, 16, 4), (Classifier, 7056, 32, 8)]
)
def test_parameters_and_shapes(head: type[nn.Module], parameters: int, channels: int, stride: int) -> None:
    assert sum(p.numel() for p in head().parameters()) == parameters
    assert head()(torch.randn(2, 1, 288, 512)).shape == (2, channels, 288 // stride, 512 // stride)
    assert head()(torch.randn(2, 1, 90, 121)).shape == (2, channels, 90 // stride, 121 // stride)


def test_last_layer_is_linear() -> None:
    """Features must be able to be negative, else no two of them could be dissimilar."""
    assert (Projector()(torch.randn(1, 1, 32, 32)) < 0).any()
