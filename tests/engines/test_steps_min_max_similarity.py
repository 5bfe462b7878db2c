# SPDX-License-Identifier: Apache-2.0
"""Min-Max Similarity: which images go where, which terms run, what the released code leaves out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.toy_steps import batch, reached, step
from torch import Tensor, nn

from fewlabel.engines.steps import MinMaxSimilarityStep

ONLY = {
    "supervised": {"negative_weight": 0, "similarity_weight": 0, "pixel_weight": 0},
    "negatives": {"supervised_weight": 0, "similarity_weight": 0, "pixel_weight": 0},
    "similarity": {"supervised_weight": 0, "negative_weight": 0, "pixel_weight": 0},
    "pixels": {"supervised_weight": 0, "negative_weight": 0, "similarity_weight": 0},
}
RELEASED: dict[str, Any] = {
    "normalize": "l1",
    "symmetric": False,
    "shared_heads": False,
    "similarity_gradient": False,
}


def record(network: nn.Module) -> list[Tensor]:
    """Collect the images that a network sees."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def test_each_network_sees_its_half_and_both_the_same_unlabeled_images() -> None:
    made, data = step(MinMaxSimilarityStep), batch(2)
    first, second = record(made.network.first), record(made.network.second)
    made(data)
    for seen, stream in ((first, data["labeled"][0]), (second, data["labeled"][1])):
        assert len(seen) == 2, "labeled and unlabeled images pass apart, each with its own BatchNorm statistics"
        assert torch.equal(seen[0], stream["image"]) and torch.equal(seen[1], data["unlabeled"]["image"])


def test_joint_batch_is_one_pass_of_the_same_images() -> None:
    made, data = step(MinMaxSimilarityStep, joint_batch=True, statistics="all"), batch(2)
    seen = record(made.network.first)
    terms = made(data)
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat([data["labeled"][0]["image"], data["unlabeled"]["image"]]))
    joint, apart = made.eval()(data), step(MinMaxSimilarityStep).eval()
    apart.load_state_dict(made.state_dict())
    torch.testing.assert_close(joint, apart(data))  # without batch statistics the two are the same
    assert terms.keys() == joint.keys()


@pytest.mark.parametrize(("name", "passes"), [("supervised", 1), ("negatives", 1), ("similarity", 1), ("pixels", 1)])
def test_each_term_alone_needs_one_pass_and_teaches_both(name: str, passes: int) -> None:
    made = step(MinMaxSimilarityStep, **ONLY[name])
    seen = record(made.network.first)
    terms = made(batch(2))
    assert tuple(terms) == ("loss", name) and len(seen) == passes
    terms["loss"].backward()
    assert reached(made.network.first) and reached(made.network.second)


def test_without_unlabeled_terms_no_unlabeled_stream_is_needed() -> None:
    made = step(MinMaxSimilarityStep, similarity_weight=0, pixel_weight=0)
    assert set(made(batch(2, unlabeled=False))) == {"loss", "supervised", "negatives"}


def test_released_second_network_learns_from_its_labels_only() -> None:
    released, supervised = step(MinMaxSimilarityStep, **RELEASED), step(MinMaxSimilarityStep, **ONLY["supervised"])
    data = batch(2)
    for made in (released, supervised):
        made(data)["loss"].backward()
    pairs = zip(released.network.second.parameters(), supervised.network.second.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs)
    first = zip(released.network.first.parameters(), supervised.network.first.parameters(), strict=True)
    assert not any(torch.equal(p.grad, q.grad) for p, q in first if p.grad.abs().sum() > 1e-6)


def test_heads_never_change_but_their_statistics_do() -> None:
    made = step(MinMaxSimilarityStep)
    heads = made.criterion.projectors
    assert not any(p.requires_grad for p in made.criterion.parameters())
    before = heads[0].layers[1].running_mean.clone()
    made.train()(batch(2))
    assert not torch.equal(heads[0].layers[1].running_mean, before)
    assert any(name.startswith("criterion.projectors") for name in made.state_dict())


def test_ramp_up_follows_the_iterations() -> None:
    made, data = step(MinMaxSimilarityStep, ramp_up=10).eval(), batch(2)
    shares = []
    for iteration in (0, 5, 10, 50):
        made.after_step(iteration)
        terms = made(data)
        rest = terms["negatives"] + terms["similarity"] + terms["pixels"]
        shares.append(((terms["loss"] - 0.25 * terms["supervised"]) / (0.25 * rest)).item())
    assert shares == pytest.approx([0.0067, 0.2865, 1.0, 1.0], abs=2e-4)
