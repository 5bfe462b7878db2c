# SPDX-License-Identifier: Apache-2.0
"""The four terms against dense formulas; who learns from what, as meant and as released."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.losses import MinMaxSimilarityLoss, StructureLoss

RELEASED: dict[str, Any] = {
    "normalize": "l1",
    "symmetric": False,
    "shared_heads": False,
    "similarity_gradient": False,
}
NAMES = ("supervised", "negatives", "similarity", "pixels")
WEIGHTS = {"supervised": "supervised_weight", "negatives": "negative_weight"} | {
    "similarity": "similarity_weight",
    "pixels": "pixel_weight",
}


def criterion(only: str | None = None, structure: StructureLoss | None = None, **options: Any) -> MinMaxSimilarityLoss:
    torch.manual_seed(0)
    zeros = {} if only is None else {w: 0.0 for name, w in WEIGHTS.items() if name != only}
    return MinMaxSimilarityLoss(structure or StructureLoss(), **(zeros | options))


def logits(seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, batch, 1, 16, 24, generator=generator)
    return a.requires_grad_(), b.requires_grad_()


def inputs(batch: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    masks = tuple((z > 0.5).float() for z in logits(2, batch))
    return {"labeled": logits(0, batch), "labels": masks, "unlabeled": logits(1, batch)}


def dense_features(head: torch.nn.Module, z: Tensor, norm: int) -> Tensor:
    f = head(z).flatten(2).transpose(1, 2)
    return f / f.abs().pow(norm).sum(-1, keepdim=True).pow(1 / norm)


def dense_info_nce(q: Tensor, k: Tensor) -> Tensor:
    """The form of the released code: positives in a column of their own, -10 on the diagonal of the negatives."""
    s = torch.einsum("bic,bjc->bij", q, k)
    positive = s.diagonal(dim1=1, dim2=2)[..., None]
    negative = torch.where(torch.eye(s.shape[1], dtype=torch.bool), -10.0, s)
    out = torch.cat([positive, negative], dim=-1).flatten(0, 1) / 0.07
    return F.cross_entropy(out, torch.zeros(len(out), dtype=torch.long))


def dense_all_negative(q: Tensor, k: Tensor) -> Tensor:
    s = torch.einsum("bic,bjc->bij", q, k)
    e = torch.exp(s / 0.07) * ~torch.eye(s.shape[1], dtype=torch.bool)
    return torch.log(1 + e.sum(-1)).mean()


@pytest.mark.parametrize("normalize", ["l1", "l2"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shared_heads", [True, False])
def test_contrast_against_the_dense_formulas(normalize: str, symmetric: bool, shared_heads: bool) -> None:
    loss = criterion(normalize=normalize, symmetric=symmetric, shared_heads=shared_heads)
    batch, norm = inputs(), int(normalize[1])
    terms = loss(**batch)
    for name, heads, stream, dense in (
        ("pixels", loss.projectors, "unlabeled", dense_info_nce),
        ("negatives", loss.classifiers, "labeled", dense_all_negative),
    ):
        assert len(heads) == (1 if shared_heads else 2)
        first, second = batch[stream]
        q, k = dense_features(heads[0], first, norm), dense_features(heads[-1], second, norm)
        expected = dense(q, k.detach())
        if symmetric:
            expected = (expected + dense(k, q.detach())) / 2
        torch.testing.assert_close(terms[name], expected, rtol=1e-5, atol=1e-5)
        wanted = torch.autograd.grad(expected, (first, second), allow_unused=True)
        found = torch.autograd.grad(terms[name], (first, second), allow_unused=True, retain_graph=True)
        for f, w in zip(found, wanted, strict=True):
            assert (f is None) == (w is None)
            if w is not None:
                torch.testing.assert_close(f, w, rtol=1e-3, atol=1e-6)


def test_supervised_and_similarity() -> None:
    batch, ell = inputs(), StructureLoss()
    terms = criterion()(**batch)
    (z1, z2), (y1, y2), (a1, a2) = batch["labeled"], batch["labels"], batch["unlabeled"]
    torch.testing.assert_close(terms["supervised"], ell(z1, y1) + ell(z2, y2))
    expected = ell(a1, torch.sigmoid(a2).detach()) + ell(a2, torch.sigmoid(a1).detach())
    torch.testing.assert_close(terms["similarity"], expected)
    wanted = torch.autograd.grad(expected, (a1, a2))
    found = torch.autograd.grad(terms["similarity"], (a1, a2))
    torch.testing.assert_close(found, wanted)


def test_total_is_the_weighted_sum_and_ramps_up() -> None:
    options = {"supervised_weight": 0.5, "negative_weight": 0.1, "similarity_weight": 0.2, "pixel_weight": 0.3}
    loss, batch = criterion(**options), inputs()
    terms = loss(**batch)
    rest = 0.1 * terms["negatives"] + 0.2 * terms["similarity"] + 0.3 * terms["pixels"]
    assert tuple(terms) == ("loss", *NAMES)
    torch.testing.assert_close(terms["loss"], 0.5 * terms["supervised"] + rest)
    halved = loss(**batch, ramp=torch.tensor(0.5))
    torch.testing.assert_close(halved["loss"], 0.5 * terms["supervised"] + 0.5 * rest)
    assert terms["loss"].ndim == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_of_zero_drops_term_head_and_input(name: str) -> None:
    loss = criterion(only=name)
    assert tuple(loss(**inputs())) == ("loss", name)
    assert len(loss.classifiers) == (name == "negatives") and len(loss.projectors) == (name == "pixels")
    unused = {"supervised": "unlabeled", "negatives": "unlabeled", "similarity": "labeled", "pixels": "labeled"}[name]
    loss(**(inputs() | {unused: None}))
    needed = {"labeled", "unlabeled"} - {unused}
    with pytest.raises(ValueError, match=f"{needed.pop()} is None"):
        loss(**dict.fromkeys(("labeled", "labels", "unlabeled")))


def gradients(name: str, **options: Any) -> tuple[float, float]:
    """How much of one term reaches the first and the second network."""
    batch = inputs()
    term = criterion(**options)(**batch)[name]
    pair = batch["labeled" if name in ("supervised", "negatives") else "unlabeled"]
    if not term.requires_grad:
        return 0.0, 0.0
    found = torch.autograd.grad(term, pair, allow_unused=True)
    return tuple(0.0 if g is None else g.abs().sum().item() for g in found)


@pytest.mark.parametrize("name", NAMES)
def test_every_term_teaches_both_networks(name: str) -> None:
    first, second = gradients(name)
    assert first > 0 and second > 0


@pytest.mark.parametrize("name", ["negatives", "pixels"])
def test_released_contrast_teaches_the_first_network_only(name: str) -> None:
    first, second = gradients(name, **RELEASED)
    assert first > 0 and second == 0


def test_released_similarity_teaches_nobody_and_is_divided_by_the_batch() -> None:
    assert gradients("similarity", **RELEASED) == (0.0, 0.0)
    batch = inputs(batch=4)
    meant, released = criterion()(**batch), criterion(**RELEASED)(**batch)
    torch.testing.assert_close(released["similarity"], meant["similarity"].detach() / 4)


def test_released_heads_do_not_align_equal_predictions() -> None:
    """Two random projectors see no likeness in one map (InfoNCE >= ln N); one shared projector does."""
    a = F.interpolate(torch.randn(1, 1, 12, 16), scale_factor=8, mode="bilinear")
    one, two = (
        criterion(only="pixels", shared_heads=shared)(None, None, (a, a.clone()))["pixels"] for shared in (True, False)
    )
    assert two > math.log(a.numel() / 16) > one


def test_released_norm_leaves_hardly_a_signal() -> None:
    a = torch.randn(1, 1, 96, 128)
    gain = {n: criterion(only="pixels", normalize=n)(None, None, (a, a.clone()))["pixels"] for n in ("l1", "l2")}
    assert gain["l2"] < gain["l1"] and math.log(768) - gain["l1"] < 1.0


def test_permuted_locations_raise_the_pixel_term() -> None:
    loss = criterion(only="pixels")
    a = F.interpolate(torch.randn(1, 1, 4, 6), scale_factor=8, mode="nearest")
    same = loss(None, None, (a, a.clone()))["pixels"]
    shifted = loss(None, None, (a, a.roll((8, 16), dims=(2, 3))))["pixels"]
    assert shifted > same + 0.5


@pytest.mark.parametrize("train_heads", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shared_heads", [True, False])
def test_parameters_that_ask_for_a_gradient_get_one(train_heads: bool, symmetric: bool, shared_heads: bool) -> None:
    loss = criterion(train_heads=train_heads, symmetric=symmetric, shared_heads=shared_heads)
    before = loss.projectors[0].layers[1].running_mean.clone()
    loss(**inputs())["loss"].backward()
    asking = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in asking)
    assert bool(asking) == train_heads
    assert not torch.equal(loss.projectors[0].layers[1].running_mean, before), "BatchNorm stays in training mode"


def test_heads_are_in_the_state() -> None:
    a, b = criterion(), MinMaxSimilarityLoss(StructureLoss())
    batch = inputs()
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(b(**batch)["loss"], a(**batch)["loss"], rtol=0, atol=0)


def test_inside_autocast() -> None:
    batch = inputs()
    half = {k: tuple(t.detach().bfloat16() for t in v) for k, v in batch.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = criterion()(**half)
    expected = criterion()(**batch)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, expected[name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_weight": -1}, "weight of the pixels term is -1"),
        (dict.fromkeys(WEIGHTS.values(), 0.0), "a network learns nothing"),
        (RELEASED | {"supervised_weight": 0.0}, "a network learns nothing"),
        ({"normalize": "max"}, "normalize 'max' is neither l1 nor l2"),
        ({"temperature": 0.0}, "temperature is 0"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        criterion(**options)
