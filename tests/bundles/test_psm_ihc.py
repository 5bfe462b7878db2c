# SPDX-License-Identifier: Apache-2.0
"""Immunohistochemistry by the overlays of PSM: pseudo masks of two classes, cells by class in figures and in files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from fewlabel.data.phantoms.immunohistochemistry import write_dataset
from fewlabel.data.randomness import one_thread

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "pathology_nuclei_segmentation_psm"
TINY: dict[str, Any] = {
    **{"spatial_size": [64, 64], "batch_size": 2, "epoch_length": 3, "max_epochs": 1, "pretraining_epochs": 1},
    **{"width": 16, "score_encoder_options": {"channels": [8, 8, 8, 8], "stem_width": 8}, "val_interval": 1},
}


def run(names: tuple[str, ...], run_id: str, data: Path, out: Path, **keys: Any) -> None:
    places = {"bundle_root": BUNDLE, "dataset_dir": data, "output_dir": out, "ckpt_dir": out / "models"}
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in names],
        workflow_type="inference" if "inference" in names else "train",
        run_id=run_id,
        logging_file=False,
        **TINY | {key: str(value) for key, value in places.items()} | {"device": "cpu"} | keys,
    )
    with one_thread():
        workflow.initialize()
        workflow.run()
        workflow.finalize()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ihc") / "data", slides=(1, 1, 1), tiles=2, seed=1, size=(96, 112))


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run(("train", "light", "ihc"), "training", data, folder)
    return folder


def test_classes_come_from_stain_and_no_voronoi_stage_runs(out: Path) -> None:
    assert {file.name.partition("-")[0] for file in (out / "stages").iterdir()} == {"pretraining", "pseudo_labels"}
    masks = [np.asarray(Image.open(file)) for file in (out / "stages").glob("pseudo_labels-*/mask/*.png")]
    assert {value for mask in masks for value in np.unique(mask)} == {0, 1, 2}
    index = json.loads((out / "examples" / "stages" / "index.json").read_text())
    assert index["class_names"] == ["background", "positive", "negative"]
    assert list(index["examples"][0]["files"]) == ["image", "map", "mask", "instances"]
    assert "class_f1" in (out / "history.csv").read_text().splitlines()[0]


def test_figures_of_each_class(data: Path, out: Path, tmp_path: Path) -> None:
    stages = {"stages_dir": str(out / "stages")}
    run(("train", "light", "ihc", "evaluate"), "evaluating", data, tmp_path, segment_with="pseudo_masks", **stages)
    found = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "metrics_per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert found["key_metric"] == "class_f1"
    truth = json.loads((data / "datalist.json").read_text())["test"]
    for value, name in enumerate(("positive", "negative"), 1):
        cells = 0
        for item in truth:
            labels, classes = (np.asarray(Image.open(data / item[key])) for key in ("label", "class_label"))
            cells += len(np.unique(labels[classes == value]))
        counts = ("true_positives", "false_positives", "false_negatives")
        hits, wrong, missed = np.array([[int(row[f"{count}_{name}"]) for row in rows] for count in counts])
        assert (hits + missed).sum() == cells
        assert found["metrics"][f"detection_recall_{name}"] == pytest.approx(hits.sum() / cells)
        assert found["metrics"][f"count_error_{name}"] == abs(wrong - missed).mean()
    assert found["metrics"]["detection_f1"] > 0.4, "clusters of stain find many cells of a drawn tile"


def test_inference_names_the_class_of_each_cell(data: Path, out: Path, tmp_path: Path) -> None:
    keys = {"ckpt_dir": str(out / "models"), "threshold": 0.05, "datalist": "datalist.json"}
    run(("inference", "light", "ihc_inference"), "inference", data, tmp_path, **keys)
    table = sorted((tmp_path / "predictions").rglob("*_centroids.csv"))[0]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    shapes = sorted((tmp_path / "predictions").rglob("*.geojson"))[0]
    features = json.loads(shapes.read_text())["features"]
    assert rows and {row["class"] for row in rows} <= {"positive", "negative"}
    assert Counter(row["class"] for row in rows) == Counter(f["properties"]["classification"]["name"] for f in features)
    labels = sorted((tmp_path / "predictions").rglob("*_instances.png"))[0]
    assert np.unique(np.asarray(Image.open(labels))).tolist() == list(range(len(rows) + 1))


def test_supervised_by_classes(data: Path, tmp_path: Path) -> None:
    run(("train", "light", "ihc"), "training", data, tmp_path, method_enabled=False, label_budget=2)
    assert (tmp_path / "models" / "model.pt").is_file() and not (tmp_path / "stages").exists()


def test_overlays_agree() -> None:
    train, ihc, inference = (
        json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in ("train", "ihc", "ihc_inference")
    )
    merged = train | ihc
    for key in ("class_names", "output_dir", "ckpt_dir", "phantom", "peak_distance_px", "merge_distance_px"):
        assert inference[key] == merged[key], key
    assert {k: v for k, v in ihc["rules"].items() if k != "_desc_"} == inference["rules"]
