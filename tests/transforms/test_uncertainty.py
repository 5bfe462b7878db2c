# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scipy.stats import entropy

from fewlabel.transforms import BinaryEntropy, BinaryEntropyd


def test_equals_scipy() -> None:
    p = torch.linspace(0, 1, 101)
    expected = [entropy([float(x), 1 - float(x)], base=2) for x in p]
    torch.testing.assert_close(BinaryEntropy()(p), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_half_precision_and_extremes_stay_finite() -> None:
    out = BinaryEntropy()(torch.tensor([0.0, 1e-7, 0.5, 1.0], dtype=torch.float16))
    assert out.dtype == torch.float32 and bool(torch.isfinite(out).all()) and out.max() <= 1


def test_output_key_keeps_probabilities_and_metadata() -> None:
    probs = MetaTensor(torch.full((1, 2, 2), 0.5), meta={"filename_or_obj": "a.png"})
    out = BinaryEntropyd("pred", output_keys="uncertainty")({"pred": probs})
    assert torch.equal(out["pred"], probs) and out["uncertainty"].meta["filename_or_obj"] == "a.png"
    assert bool((BinaryEntropyd("pred")({"pred": probs})["pred"] == 1).all())


def test_logits_and_wrong_keys_are_refused() -> None:
    for bad in (torch.tensor([3.0]), torch.tensor([float("nan")])):
        with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
            BinaryEntropy()(bad)
    with pytest.raises(ValueError, match="expected 2 output_keys"):
        BinaryEntropyd(["a", "b"], output_keys="c")
