# SPDX-License-Identifier: Apache-2.0
"""Metrics of label maps in an evaluator: what is averaged how, and what stands in the files of an evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scipy.ndimage import label as components
from tests.metrics import _slow

from fewlabel import metrics as m
from fewlabel.handlers import ScoresHandler

COUNTS = ["true_positives", "false_positives", "false_negatives"]


def cases() -> list[dict[str, Any]]:
    """Three images: usual, empty on empty, false alarm; as they come from a loader, the prediction in float32."""
    made = []
    for seed in range(3):
        pred, truth = (torch.from_numpy(labels)[None] for labels in _slow.discs(seed))
        pred, truth = pred * (seed != 1), truth * (seed == 0)
        made.append({"pred": MetaTensor(pred.float()), "label": truth})
    return made


def evaluated(items: list[dict[str, Any]], folder: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return metrics.json and the rows of metrics_per_case.csv."""

    def update(engine: Engine, item: dict[str, Any]) -> list[dict[str, Any]]:
        name = str(folder / f"{engine.state.iteration}.png")
        engine.state.batch = [item | {"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": name})}]
        return engine.state.batch

    engine = Engine(update)
    engine.state.metric_details = {}
    for name, metric in {"aji": m.key_aji(), **m.instance_scores(**options)}.items():
        metric.attach(engine, name)
    columns = {"detection_f1": COUNTS, "detection_f1_b": [f"{name}_b" for name in COUNTS]}
    ScoresHandler(folder, "test", columns=columns).attach(engine)
    engine.run(items)
    with (folder / "metrics_per_case.csv").open(newline="") as stream:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(stream))


def test_an_evaluation_with_its_files(tmp_path: Path) -> None:
    items = cases()
    found, rows = evaluated(items, tmp_path, radius_px=4.0)
    overlaps = [m.instance_overlap(item["pred"][0], item["label"][0]) for item in items]
    means = {
        "aji": m.aggregated_jaccard,
        "aji_plus": m.aggregated_jaccard_plus,
        "object_dice": m.object_dice,
        "object_f1": m.object_f1,
        "panoptic_quality": lambda overlap: m.panoptic_quality(overlap).pq,
        "pixel_f1": m.pixel_f1,
        "pixel_iou": m.pixel_iou,
    }
    points = [[m.objects_of(item[key][0]).points for key in ("pred", "label")] for item in items]
    scores = [m.detection_scores(*pair, 4.0) for pair in points]
    total = sum(scores, start=m.DetectionScores())
    expected = {name: np.mean([metric(overlap) for overlap in overlaps]) for name, metric in means.items()}
    expected |= {f"detection_{name}": getattr(total, name) for name in ("f1", "precision", "recall")}
    expected["count_error"] = np.mean([score.count_error for score in scores])
    assert found["metrics"] == pytest.approx(expected)
    assert 0 < expected["detection_precision"] < expected["detection_recall"] < 1 and expected["count_error"] > 0
    assert found["columns"]["detection_f1"] == COUNTS
    assert list(rows[0]) == ["case", *means, *COUNTS]
    for row, overlap, score in zip(rows, overlaps, scores, strict=True):
        assert float(row["aji"]) == pytest.approx(m.aggregated_jaccard(overlap), rel=1e-5)
        assert [int(row[name]) for name in COUNTS] == [getattr(score, name) for name in COUNTS]
    assert [float(row["aji"]) for row in rows[1:]] == [1.0, 0.0]


def test_classes_are_counted_by_themselves(tmp_path: Path) -> None:
    items = cases()[:1]
    truth = items[0]["label"]
    items[0] |= {"pred": truth, "label_class": (truth > 0) * (1 + truth % 2), "pred_class": (truth > 0).float()}
    found, rows = evaluated(items, tmp_path, class_names=["background", "a", "b"])
    even, odd = ((np.unique(truth)[1:] % 2 == part).sum() for part in (0, 1))
    got = found["metrics"]
    assert got["detection_f1"] == got["aji"] == 1.0 and got["count_error"] == 0
    assert got["detection_recall_a"] == 1.0 and got["detection_precision_a"] == pytest.approx(even / (even + odd))
    assert got["detection_f1_b"] == 0.0 and got["count_error_a"] == got["count_error_b"] == odd
    assert [int(rows[0][f"{name}_b"]) for name in COUNTS] == [0, 0, odd]


def test_f1_of_all_classes_counts_a_wrong_class_twice() -> None:
    truth = torch.zeros(2, 2, 9, 30)
    for value, column in enumerate((3, 13, 23), 1):
        truth[:, 0, 4, column], truth[:, 1, 4, column] = value, 1
    pred = truth.clone()
    pred[0, 1, 4, 13] = 2
    metric = m.ClassDetectionMetric(2.0, [1, 2])
    metric(pred, truth)
    assert float(metric.aggregate()) == pytest.approx((2 / 3 + 1) / 2)
    assert metric.get_buffer().flatten().tolist() == pytest.approx([2 / 3, 1])
    assert list(m.class_scores(2.0, ["background", "a", "b"]))[4:6] == ["detection_f1_a", "detection_precision_a"]
    assert m.detection_columns(["background", "nucleus"]) == {"detection_f1": COUNTS}


@pytest.mark.parametrize("shape", [(90, 90), (9, 30, 30)])
def test_truth_as_components_of_its_foreground(shape: tuple[int, ...]) -> None:
    pred, truth = (labels.reshape(shape) for labels in _slow.discs(1))
    merged = components(truth, np.ones([3] * len(shape)))[0]
    metric = m.InstanceMetric(m.aggregated_jaccard, truth="components")
    metric(torch.from_numpy(pred)[None, None], torch.from_numpy(truth)[None, None].float())
    expected = m.aggregated_jaccard(m.instance_overlap(pred, merged))
    assert float(metric.aggregate()) == pytest.approx(expected)
    assert expected != pytest.approx(m.aggregated_jaccard(m.instance_overlap(pred, truth)))


def test_refused_use() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="no case was seen"):
        m.InstanceMetric(m.object_dice).aggregate()
    with pytest.raises(ValueError, match="one shape"):
        m.InstanceMetric(m.object_dice)(maps, maps[..., 1:])
    with pytest.raises(ValueError, match=r"\(B, 2, H, W\)"):
        m.DetectionMetric(6.0, class_value=1)(maps, maps)
    with pytest.raises(ValueError, match="whole numbers"):
        m.DetectionMetric(6.0)(maps + 0.5, maps)
    with pytest.raises(ValueError, match="instances, components"):
        m.key_aji(truth="component")
    with pytest.raises(ValueError, match="recall"):
        m.DetectionMetric(6.0, "accuracy")
