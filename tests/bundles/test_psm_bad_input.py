# SPDX-License-Identifier: Apache-2.0
"""Bad input to the PSM bundle: one sentence that names the key or file and the remedy, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.bundles.conftest import listing
from tests.bundles.nuclei import dataset, run
from tests.bundles.test_bad_input import one_line
from tests.bundles.tiny import EVALUATE, INFERENCE, TRAIN


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("tiles") / "data")


def refused(data: Path, out: Path, names: tuple[str, ...] = TRAIN, run_id: str = "training", **keys: Any) -> str:
    """Run, demand one sentence and no file, and return the sentence."""
    with pytest.raises(SystemExit) as caught:
        run(data, out, names, run_id, **keys)
    assert isinstance(caught.value.code, str) and caught.value.code.startswith("fewlabel: ")
    assert not listing(out)
    return caught.value.code.removeprefix("fewlabel: ")


KEYS: list[tuple[dict[str, Any], str]] = [
    ({"label_budget": 4}, "label_budget is 4, but this method uses no label: give 0, or --method_enabled false"),
    ({"label_budget": None}, "label_budget is None, but this method uses no label: give 0"),
    ({"method_enabled": False}, "label_budget 0 is not a number of labels: give 1 or more, or null for all"),
    ({"method_enabled": False, "label_budget": 5}, "label_budget 5 is more than there is: 4 labeled items"),
    ({"segment_with": "last"}, "segment_with is 'last': give otsu, colors, pseudo_masks, points or final"),
    ({"proxy_task": "jigsaw"}, "proxy_task is 'jigsaw': give similarity, contrastive, rotation, simsiam or mean_value"),
    ({"map_order": "relu"}, "map_order is 'relu': give minmax_then_mean or relu_then_minmax"),
    ({"map_sign": "blue"}, "map_sign is 'blue': give density, hematoxylin or null"),
    ({"cluster_rule": "dark"}, "cluster_rule is 'dark': give darkest, hottest, bluest or released"),
    ({"cluster_features": "all"}, "cluster_features is 'all': give scalar, sum or released"),
    ({"split": "cut"}, "split is 'cut': give none, watershed, peaks or null"),
    ({"point_epochs": 0}, "point_epochs is 0: give a whole number from 1 on"),
    ({"width": 20}, "width is 20: give a multiple of 16"),
    ({"score_encoder": "resnet10q"}, "Unknown model (resnet10q)"),
    ({"map_layer": ["encoder.layer1"]}, "unknown key 'map_layer': did you mean 'map_layers'?"),
]


@pytest.mark.parametrize(("override", "words"), KEYS)
def test_bad_key_stops_training(data: Path, tmp_path: Path, override: dict[str, Any], words: str) -> None:
    one_line(refused(data, tmp_path / "out", **override), words)


@pytest.mark.parametrize(
    ("run_id", "words"),
    [
        ("pseudo_labeling", "stage pretraining is not done in "),
        ("point_training", "stage pseudo_labels is not done in "),
        ("fitting", "stage voronoi_labels is not done in "),
    ],
)
def test_stage_without_the_one_before(data: Path, tmp_path: Path, run_id: str, words: str) -> None:
    one_line(refused(data, tmp_path / "out", run_id=run_id), words, "run training, or the stages up to this one")


@pytest.mark.parametrize(
    ("segment_with", "words"),
    [
        ("pseudo_masks", "stage pretraining is not done in "),
        ("points", "stage point_training is not done in "),
        ("final", "holds no model.pt: run training first"),
    ],
)
def test_nothing_trained_yet(data: Path, tmp_path: Path, segment_with: str, words: str) -> None:
    one_line(refused(data, tmp_path / "out", EVALUATE, "evaluating", segment_with=segment_with), words)


def test_nothing_trained_yet_for_inference(data: Path, tmp_path: Path) -> None:
    for pixels in (1, 10**6):
        sentence = refused(data, tmp_path / "out", INFERENCE, "inference", max_pixels=pixels)
        one_line(sentence, "holds no model.pt: run training first")


@pytest.mark.parametrize(("name", "names", "run_id"), [("validation", TRAIN, "training"), ("test", EVALUATE, "run")])
def test_tiles_that_are_scored_need_labels(tmp_path: Path, name: str, names: tuple[str, ...], run_id: str) -> None:
    data = dataset(tmp_path / "data")
    lists = json.loads((data / "datalist.json").read_text())
    image = lists[name][0]["image"]
    del lists[name][0]["label"]
    (data / "datalist.json").write_text(json.dumps(lists))
    one_line(refused(data, tmp_path / "out", names, run_id, segment_with="otsu"), name, image, "label")


def test_training_tiles_need_no_labels_and_bad_ones_are_not_noticed(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", training=2)
    (data / "labels" / "t00.png").write_bytes(b"no picture")
    (data / "labels" / "t01.png").unlink()
    run(data, tmp_path / "out", segment_with="pseudo_masks", pretraining_epochs=1)
    assert len(list(tmp_path.glob("out/stages/pretraining-*/stage.json"))) == 1


def test_bad_image_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", training=2)
    file = data / "images" / "t01.png"
    file.write_bytes(file.read_bytes()[:-200])
    one_line(refused(data, tmp_path / "out"), str(file), "image file is truncated")
