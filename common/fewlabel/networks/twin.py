# SPDX-License-Identifier: Apache-2.0
"""Two networks of one architecture that train together and predict alone or as their mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewlabel.errors import ConfigError

MEMBERS = ("first", "second", "mean")


class Twin(nn.Module):
    """Hold two networks, ``first`` and ``second``, and predict with one of them or with both.

    Methods that let two networks teach each other, teacher and student, and the plain baseline all save this module,
    so that every checkpoint has the same keys and every bundle the same inference.

    Args:
        build: makes one network; called twice as ``build(dropout=dropout)``, so that the two start apart.
        dropout: passed to ``build``; a probability.
        tied: make one network and use it as both: a baseline that trains and predicts with a single network, whose
            checkpoint nevertheless fits wherever a twin's does.
        member: what ``forward`` returns: ``"first"``, ``"second"``, or ``"mean"``, the logit of the mean probability.
        softmax: classes exclude each other, p = softmax of the logits; else they are independent, p = sigmoid.

    Raises:
        ConfigError: when ``member`` is none of these.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        dropout: float = 0.0,
        tied: bool = False,
        member: str = "mean",
        softmax: bool = False,
    ) -> None:
        super().__init__()
        if member not in MEMBERS:
            raise ConfigError(f"member '{member}' is none of {', '.join(MEMBERS)}")
        self.first = build(dropout=dropout)
        self.second = self.first if tied else build(dropout=dropout)
        self.tied = tied
        self.member = member
        self.softmax = softmax

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the chosen member.

        Args:
            image: (B, C, H, W), what ``build`` 's networks take.

        Returns:
            (B, K, H, W) logits of K classes.
        """
        if self.member == "first" or self.tied:
            return self.first(image)
        if self.member == "second":
            return self.second(image)
        if self.softmax:
            return mean_log_probability(self.first(image), self.second(image))
        return mean_logit(self.first(image), self.second(image))


def mean_logit(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the logit of the mean of two probabilities, from their logits.

    With p = (sigmoid(a) + sigmoid(b)) / 2, in a form that neither overflows nor saturates:

    .. math:: \log\frac{p}{1-p} = \log(e^a + e^b + 2e^{a+b}) - \log(2 + e^a + e^b)

    Args:
        a: logits, any shape.
        b: logits, same shape.

    Returns:
        Logits of the same shape and dtype, computed in float32 or better; differentiable in both.

    Example:
        >>> mean_logit(torch.tensor([0.0, 200.0]), torch.tensor([0.0, 200.0]))
        tensor([  0., 200.])
    """
    x, y = _at_least_float32(a), _at_least_float32(b)
    two = torch.full_like(x, math.log(2.0))
    above = torch.logsumexp(torch.stack([x, y, x + y + two]), dim=0)
    below = torch.logsumexp(torch.stack([x, y, two]), dim=0)
    return (above - below).to(a.dtype)


def mean_log_probability(a: Tensor, b: Tensor) -> Tensor:
    r"""Return logits whose softmax is the mean of two softmaxes: log((softmax(a) + softmax(b)) / 2).

    Args:
        a: (B, K, *space) logits of K exclusive classes.
        b: logits, same shape.

    Returns:
        (B, K, *space), <= 0, of the same dtype, computed in float32 or better; differentiable in both.

    Example:
        >>> mean_log_probability(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 200.0]])).exp()
        tensor([[0.2500, 0.7500]])
    """
    both = torch.stack([_at_least_float32(a).log_softmax(dim=1), _at_least_float32(b).log_softmax(dim=1)])
    return (torch.logsumexp(both, dim=0) - math.log(2.0)).to(a.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
