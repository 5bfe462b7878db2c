# SPDX-License-Identifier: Apache-2.0
"""Cross pseudo supervision: same labels for both, hard labels from each other."""

from __future__ import annotations

import pytest
import torch
from tests.toy_steps import batch, reached, step

from fewlabel.engines.steps import CrossPseudoSupervisionStep


@pytest.mark.parametrize("labeled_too", [True, False])
def test_against_the_formula(labeled_too: bool) -> None:
    made, data = step(CrossPseudoSupervisionStep, labeled_too=labeled_too, pseudo_weight=0.7).eval(), batch(1)
    first, second, ell = made.network.first, made.network.second, made.loss
    x, y, u = data["labeled"][0]["image"], data["labeled"][0]["label"], data["unlabeled"]["image"]
    supervised = ell(first(x), y) + ell(second(x), y)
    images = torch.cat([x, u]) if labeled_too else u
    a, b = first(images), second(images)
    pseudo = ell(a, (torch.sigmoid(b) > 0.5).float()) + ell(b, (torch.sigmoid(a) > 0.5).float())
    terms = made(data)
    torch.testing.assert_close(terms, {"loss": supervised + 0.7 * pseudo, "supervised": supervised, "pseudo": pseudo})


def test_both_networks_learn() -> None:
    made = step(CrossPseudoSupervisionStep)
    made(batch(1))["loss"].backward()
    assert reached(made.network.first) and reached(made.network.second)


def test_weight_zero_is_plain_supervision_of_two() -> None:
    made = step(CrossPseudoSupervisionStep, pseudo_weight=0)
    assert set(made(batch(1, unlabeled=False))) == {"loss", "supervised"}
