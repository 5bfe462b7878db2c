# SPDX-License-Identifier: Apache-2.0
"""Cells as peaks: each class by itself, disks that share pixels by distance, and the maps that metrics read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fewlabel.engines import WholeImageSegmenter
from fewlabel.errors import ConfigError
from fewlabel.transforms import DetectionRules, InstancesFromLogitsd, instances_from_logits

RULES = DetectionRules(blur_px=1, min_distance_px=3, merge_px=6, radius_px=2)
CELLS = {(5, 8): (1, 0.9), (5, 13): (2, 0.8), (20, 10): (1, 0.7), (20, 12): (1, 0.6), (16, 30): (2, 0.4)}


def probabilities() -> torch.Tensor:
    """Five peaks; the fourth lies within reach of the third, and the fifth is too low."""
    probs = torch.full((3, 28, 40), 0.05)
    for (row, column), (kind, value) in CELLS.items():
        probs[kind, row, column] = value
    probs[0] = 1 - probs[1:].sum(0)
    return probs


def test_peaks_of_each_class() -> None:
    labels, kinds, probability = instances_from_logits(probabilities(), RULES, softmax=False)
    assert kinds.tolist() == [1, 2, 1] and probability.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert labels.dtype == torch.int32 and labels.unique().tolist() == [0, 1, 2, 3]
    assert [int(labels[0, row, column]) for row, column in ((5, 8), (5, 13), (20, 10))] == [1, 2, 3]
    logits = probabilities().log()
    assert torch.equal(instances_from_logits(logits, RULES).labels, labels)


def test_pixels_belong_to_the_nearest_peak() -> None:
    rules = DetectionRules(blur_px=1, min_distance_px=3, merge_px=6, radius_px=4)
    labels = instances_from_logits(probabilities(), rules, softmax=False).labels[0].numpy()
    rows, columns = np.indices(labels.shape)
    far = np.stack([np.hypot(rows - r, columns - c) for r, c in ((5, 8), (5, 13), (20, 10))])
    assert np.array_equal(labels > 0, far.min(0) <= 4)
    assert all(np.isclose(far[value - 1], far.min(0))[labels == value].all() for value in (1, 2, 3))


def test_one_pixel_is_no_two_cells() -> None:
    probs = torch.zeros(3, 12, 12)
    probs[1:, 6, 6] = 0.5
    labels, kinds, _ = instances_from_logits(probs, RULES, softmax=False)
    assert kinds.tolist() == [1] and int(labels.max()) == 1


def test_nothing_found() -> None:
    labels, kinds, probability = instances_from_logits(torch.zeros(3, 12, 12), RULES)
    assert not labels.any() and kinds.shape == probability.shape == (0,)


@pytest.mark.parametrize("rules", [RULES, None])
def test_class_of_each_pixel_is_kept(rules: Any) -> None:
    scores = probabilities().log().mT.contiguous()
    found: dict[Any, Any] = InstancesFromLogitsd("pred", rules, axes="WH")({"pred": MetaTensor(scores)})
    assert isinstance(found["pred_class"], MetaTensor) and found["pred_class"].shape == (1, 40, 28)
    of_label = torch.cat([torch.zeros(1, dtype=torch.int64), found["pred_kinds"]])
    assert torch.equal(found["pred_class"].as_subclass(torch.Tensor).long(), of_label[found["pred"].long()])
    assert "pred_class" not in InstancesFromLogitsd("pred")({"pred": torch.zeros(2, 8, 8)})


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", 0.0), ("blur_px", 4), ("min_distance_px", 0), ("merge_px", -1), ("radius_px", -1)],
)
def test_impossible_rules(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected .* received {value}"):
        DetectionRules(**{key: value})


def test_points_of_whole_images_are_refused(tmp_path: Path) -> None:
    segmenter = WholeImageSegmenter(torch.nn.Identity(), tmp_path, rules=RULES)
    assert segmenter.run([]) == []
    with pytest.raises(ConfigError, match=r"a\.tif is too large .* raise max_pixels"):
        segmenter.run([{"image": "a.tif"}])
