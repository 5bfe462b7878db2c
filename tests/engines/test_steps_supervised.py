# SPDX-License-Identifier: Apache-2.0
"""The baselines: one network, or two that share nothing."""

from __future__ import annotations

import torch
from tests.toy_steps import batch, reached, step

from fewlabel.engines.steps import SupervisedStep


def test_tied_is_one_network_on_one_stream() -> None:
    made = step(SupervisedStep, tied=True)
    one = batch(1, unlabeled=False)
    terms = made(one)
    stream = one["labeled"][0]
    torch.testing.assert_close(terms["loss"], made.loss(made.network.first(stream["image"]), stream["label"]))
    terms["loss"].backward()
    assert reached(made.network.second)


def test_untied_networks_learn_from_their_own_stream() -> None:
    made, two = step(SupervisedStep), batch(2, unlabeled=False)
    made(two)["loss"].backward()
    assert reached(made.network.first) and reached(made.network.second)
    with_gradients = {n: p.grad.clone() for n, p in made.network.first.named_parameters()}
    made.zero_grad()
    two["labeled"][1] = batch(1, seed=7)["labeled"][0]
    made(two)["loss"].backward()
    for name, p in made.network.first.named_parameters():
        torch.testing.assert_close(p.grad, with_gradients[name])
