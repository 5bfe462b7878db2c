# SPDX-License-Identifier: Apache-2.0
"""Two networks as one: members, their exact mean, tying, copies and exports."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewlabel.errors import ConfigError
from fewlabel.networks import EncoderUNet, Twin, mean_log_probability, mean_logit

SLIM = partial(EncoderUNet, encoder="resnet18d", encoder_options={"channels": [8, 8, 16, 16], "stem_width": 4})


class Scale(nn.Module):
    """The smallest network; counts its calls."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(()))
        self.dropout, self.calls = dropout, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.weight * x


def test_members() -> None:
    x = torch.randn(2, 1, 3, 3)
    twin = Twin(Scale, dropout=0.3)
    assert twin.first.dropout == twin.second.dropout == 0.3
    expected = (torch.sigmoid(twin.first(x)) + torch.sigmoid(twin.second(x))) / 2
    torch.testing.assert_close(torch.sigmoid(twin(x)), expected)
    for member in ("first", "second"):
        twin.member = member
        assert torch.equal(twin(x), getattr(twin, member)(x))
    with pytest.raises(ConfigError, match="member 'both' is none of first, second, mean"):
        Twin(Scale, member="both")


@pytest.mark.parametrize("member", ["first", "second", "mean"])
def test_tied_is_one_network_at_one_pass_with_the_keys_of_two(member: str) -> None:
    tied, untied = Twin(Scale, tied=True, member=member), Twin(Scale)
    x = torch.randn(4)
    assert torch.equal(tied(x), tied.first.weight * x)
    assert tied.first.calls == 1
    assert len(list(tied.parameters())) == 1
    assert tied.state_dict().keys() == untied.state_dict().keys()
    untied.load_state_dict(tied.state_dict())
    torch.testing.assert_close(untied(x), tied(x))


def test_mean_logit_is_exact_where_probabilities_saturate() -> None:
    a = torch.tensor([-300.0, -40.0, -3.0, 0.0, 2.0, 40.0, 300.0, 1e30])
    b = torch.tensor([-300.0, -41.0, 5.0, 0.0, 2.0, 30.0, -300.0, 1e30])
    p = (torch.sigmoid(a.double()) + torch.sigmoid(b.double())) / 2
    q = (torch.sigmoid(-a.double()) + torch.sigmoid(-b.double())) / 2
    inner = slice(1, 6)
    torch.testing.assert_close(mean_logit(a, b)[inner].double(), (p / q).log()[inner], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean_logit(a, b)[[0, 6, 7]], torch.tensor([-300.0, 0.0, 1e30]))


def test_mean_logit_gradient_and_half_precision() -> None:
    a, b = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_logit, (a, b))
    half = mean_logit(torch.full((3,), 9.0, dtype=torch.bfloat16), torch.full((3,), 9.0, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and bool((half == 9).all())


@pytest.mark.parametrize("classes", [2, 3])
def test_mean_of_exclusive_classes(classes: int) -> None:
    x = torch.randn(2, classes, 3, 3)
    twin = Twin(Scale, softmax=True)
    expected = (twin.first(x).softmax(dim=1) + twin.second(x).softmax(dim=1)) / 2
    torch.testing.assert_close(twin(x).softmax(dim=1), expected)
    torch.testing.assert_close(twin(x).exp(), expected)
    twin.member = "first"
    assert torch.equal(twin(x), twin.first(x))


def test_mean_log_probability_is_exact_where_probabilities_vanish() -> None:
    a = torch.tensor([[-300.0, 0.0], [1e30, 0.0]], requires_grad=True)
    found = mean_log_probability(a, a.detach())
    torch.testing.assert_close(found, torch.tensor([[-300.0, 0.0], [0.0, -1e30]]))
    found.sum().backward()
    assert a.grad is not None and bool(a.grad.isfinite().all())
    half = mean_log_probability(a.detach().bfloat16(), a.detach().bfloat16())
    assert half.dtype == torch.bfloat16
    b, c = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_log_probability, (b[None], c[None]))


def test_copies_keep_what_is_shared() -> None:
    tied = copy.deepcopy(Twin(Scale, tied=True))
    assert tied.second is tied.first
    twin = Twin(Scale)
    other = copy.deepcopy(twin)
    with torch.no_grad():
        other.first.weight.add_(1)
    assert twin.first.weight != other.first.weight


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"member": "second"}])
def test_torchscript(options: dict[str, Any]) -> None:
    twin = Twin(SLIM, **options).eval()
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(twin)(x), twin(x))
        torch.testing.assert_close(torch.jit.trace(twin, torch.randn(1, 3, 32, 32))(x), twin(x))


def test_torch_export_with_any_batch_size() -> None:
    """What the ONNX exporter starts from."""
    twin = Twin(SLIM).eval()
    batch = {"image": {0: torch.export.Dim.AUTO}}
    program = torch.export.export(twin, (torch.randn(2, 3, 32, 48),), dynamic_shapes=batch)
    x = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), twin(x))
