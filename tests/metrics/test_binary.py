# SPDX-License-Identifier: Apache-2.0
"""Binary scores against scikit-learn-style definitions written out by hand."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from fewlabel.metrics import GlobalDice, binary_scores, key_dice


def cases() -> list[dict[str, torch.Tensor]]:
    """Prediction, probability and truth of three images of different size: usual, empty on empty, false alarm."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for size, amount in (((9, 7), 0.5), ((5, 6), 0.0), ((8, 8), 0.0)):
        prob = torch.rand(1, *size, generator=generator)
        label = (torch.rand(1, *size, generator=generator) < amount).float()
        made.append({"prob": prob, "pred": (prob >= 0.5).float(), "label": label})
    made[1]["pred"].zero_()
    return made


def evaluated() -> dict[str, float]:
    engine = Engine(lambda engine, batch: [batch])
    for name, metric in {"mean_dice": key_dice(), **binary_scores()}.items():
        metric.attach(engine, name)
    engine.state.metric_details = {}
    engine.run(cases())
    return {k: float(v) for k, v in engine.state.metrics.items()}


def test_against_plain_sums() -> None:
    dice, iou, mae_prob, mae_mask = [], [], [], []
    tp = both = 0.0
    for c in cases():
        inter, total = float((c["pred"] * c["label"]).sum()), float(c["pred"].sum() + c["label"].sum())
        dice.append(2 * inter / total if total else 1.0)
        iou.append(inter / (total - inter) if total else 1.0)
        mae_prob.append(float((c["prob"] - c["label"]).abs().mean()))
        mae_mask.append(float((c["pred"] - c["label"]).abs().mean()))
        tp, both = tp + inter, both + total
    expected = {"mean_dice": dice, "mean_iou": iou, "mae_probability": mae_prob, "mae_mask": mae_mask}
    found = evaluated()
    for name, values in expected.items():
        assert found[name] == pytest.approx(sum(values) / 3, abs=1e-6), name
    assert found["global_dice"] == pytest.approx(2 * tp / both, abs=1e-6)


def test_global_dice_of_nothing_but_empty_masks_is_one() -> None:
    metric = GlobalDice()
    metric(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    assert float(metric.aggregate()) == 1.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        GlobalDice()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
