# SPDX-License-Identifier: Apache-2.0
"""The method without labels reads none: wrong ones, in training, validation and test, change no weight of any stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bundles.nuclei import dataset, run
from tests.guards.test_leak import _tensors, history, images, labels, poisoned, same, watching

from fewlabel.data import read_datalist
from fewlabel.errors import ConfigError

STATES = ("models", "stages/pretraining-*", "stages/point_training-*")
PICTURES = ("map", "mask", "points", "voronoi")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("tiles") / "data")


def all_labels(data: Path) -> set[str]:
    source = read_datalist(data)
    return labels([*source.training, *source.validation, *source.test])


def results(out: Path) -> tuple[dict[str, torch.Tensor], dict[str, bytes]]:
    """All tensors of the resume states of all trainings, and the pictures of the stages."""
    tensors: dict[str, torch.Tensor] = {}
    for pattern in STATES:
        for file in out.glob(f"{pattern}/resume/last.pt"):
            tensors |= _tensors(file.parents[1].name, torch.load(file, weights_only=True))
    files = {file for kind in PICTURES for file in out.glob(f"stages/*/{kind}/*.png")}
    return tensors, {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def test_wrong_labels_change_no_weight_and_no_pseudo_label(data: Path, tmp_path: Path) -> None:
    wrong = poisoned(data, tmp_path / "wrong", all_labels)
    assert len(all_labels(data)) == 4 + 1 + 2
    for name, tiles in (("a", data), ("b", wrong)):
        run(tiles, tmp_path / name, foreground_weight=4.0)  # so that few steps find nuclei to score
    (tensors_a, pictures_a), (tensors_b, pictures_b) = (results(tmp_path / name) for name in "ab")
    assert {key.partition(".")[0].partition("-")[0] for key in tensors_a} == {"models", "pretraining", "point_training"}
    assert same(tensors_a, tensors_b)
    assert len(pictures_a) == 4 * len(PICTURES) and pictures_a == pictures_b
    loss_a, loss_b = (history(tmp_path / name, "loss") for name in "ab")
    pixels_a, pixels_b = (history(tmp_path / name, "pixel_f1") for name in "ab")
    assert loss_a == loss_b
    assert pixels_a != pixels_b, "the validation reads the planted labels, and only its figures show it"


def test_wrong_labels_change_the_weights_of_plain_supervision(data: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    wrong = poisoned(data, tmp_path / "wrong", all_labels)
    keys: dict[str, Any] = {"method_enabled": False, "label_budget": 2, "max_epochs": 1}
    for name, tiles in (("a", data), ("b", wrong)):
        run(tiles, tmp_path / name, **keys)
    assert not same(results(tmp_path / "a")[0], results(tmp_path / "b")[0])


def test_training_opens_images_and_the_labels_of_validation_alone(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    source = read_datalist(folder)
    with watching(folder) as opened:
        run(folder, tmp_path / "out")
    assert opened - {str(folder / "datalist.json")} == (
        images(source.training) | images(source.validation) | labels(source.validation)
    )


@pytest.mark.parametrize("section", ["pretrain", "pseudo"])
def test_a_stage_that_opens_a_label_ends_with_the_name_of_the_tile(data: Path, tmp_path: Path, section: str) -> None:
    spy = "$[lambda item: open(item['image'].replace('images', 'labels'), 'rb').close() or item]"
    keys = {f"{section}::dataset::transform": f"{spy} + @transforms::read + @transforms::grid"}
    with pytest.raises(ConfigError, match=r"the label of images/t0\d\.png, which label_budget 0 holds back"):
        run(data, tmp_path, **keys)
    assert not list(tmp_path.glob("stages/pseudo_labels-*/stage.json"))
