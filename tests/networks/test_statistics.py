# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabel.networks.statistics import kept_statistics


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3, momentum=None)))


def test_output_and_gradient_are_those_of_training() -> None:
    x = torch.randn(4, 1, 5, 5)
    kept, free = net(), net()
    with kept_statistics(kept):
        ours = kept(x)
    theirs = free(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for a, b in zip(kept.parameters(), free.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


def test_running_statistics_stay_and_momenta_return() -> None:
    kept = net()
    before = [b.clone() for name, b in kept.named_buffers() if "running" in name]
    with pytest.raises(RuntimeError), kept_statistics(kept):
        kept(torch.randn(4, 1, 5, 5) + 3)
        raise RuntimeError
    assert all(
        torch.equal(a, b) for a, b in zip(before, [b for n, b in kept.named_buffers() if "running" in n], strict=True)
    )
    assert [m.momentum for m in kept.modules() if isinstance(m, nn.BatchNorm2d)] == [0.1, None]
    kept(torch.randn(4, 1, 5, 5) + 3)
    assert not torch.equal(before[0], kept[1].running_mean)  # type: ignore[index]
