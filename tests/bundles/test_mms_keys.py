# SPDX-License-Identifier: Apache-2.0
"""Keys of the MMS bundle do what the README says of them: the baseline, the loss terms, augmentation, variants."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from tests.bundles.tiny import TRAIN, dataset, run, workflow
from torch import Tensor

from fewlabel.errors import ConfigError

TERMS = {
    "supervised_weight": "supervised",
    "negative_weight": "negatives",
    "similarity_weight": "similarity",
    "pixel_weight": "pixels",
}
NOT_TERMS = {"epoch", "iteration", "loss", "lr", "seconds"}
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def terms(folder: Path) -> set[str]:
    """The columns of a history without validation that are loss terms."""
    with (folder / "history.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return set(row) - NOT_TERMS


def halves(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the first and of the second network."""
    model = torch.load(folder / "models" / "model.pt", weights_only=True)
    first, second = (
        {k.split(".", 1)[1]: v for k, v in model.items() if k.startswith(n)} for n in ("first.", "second.")
    )
    assert first.keys() == second.keys()
    return first, second


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame i is 10 i bright all over, so that a batch tells which frames are in it: 6 labeled, then 2, 3, 4 others."""
    root = dataset(tmp_path_factory.mktemp("shades"), training=6, unlabeled=4)
    for file in (root / "images").iterdir():
        Image.new("RGB", (48, 32), (10 * int(file.stem[1:]),) * 3).save(file)
    return root


def epoch(made: ConfigWorkflow) -> dict[str, list[set[int]]]:
    """The frames that one epoch sees, by stream."""
    seen: dict[str, list[set[int]]] = {"labeled": [], "unlabeled": []}
    for batch in made.parser.get_parsed_content("train::dataloader"):
        streams = {"labeled": batch["labeled"], "unlabeled": [batch["unlabeled"]] if "unlabeled" in batch else []}
        for name, found in streams.items():
            seen[name] += [set() for _ in range(len(found) - len(seen[name]))]
            for numbers, stream in zip(seen[name], found, strict=True):
                assert ("label" in stream) == (name == "labeled")
                numbers |= set(_frames(stream["image"]))
    return seen


def _frames(images: Tensor) -> list[int]:
    gray = images[:, 0].mean((1, 2)).numpy() * IMAGENET[1, 0] + IMAGENET[0, 0]
    return [round(float(value) * 255 / 10) for value in gray]


WEAK = {"labeled_augmentation": "weak", "unlabeled_augmentation": "weak", "epoch_length": 6}


def test_method_sees_disjoint_halves_and_the_unlabeled_frames(shades: Path, tmp_path: Path) -> None:
    seen = epoch(workflow(shades, tmp_path, **WEAK))
    (a, b), (unlabeled,) = seen["labeled"], seen["unlabeled"]
    assert (a | b, a & b, len(a)) == (set(range(6)), set(), 3)
    assert unlabeled == {11, 12, 13, 14}


def test_what_the_budget_leaves_over_is_unlabeled(shades: Path, tmp_path: Path) -> None:
    seen = epoch(workflow(shades, tmp_path, label_budget=2, **WEAK))
    labeled = set().union(*seen["labeled"])
    assert len(labeled) == 2 and labeled <= set(range(6))
    assert seen["unlabeled"] == [set(range(6)) - labeled | {11, 12, 13, 14}]


@pytest.mark.parametrize(("networks", "streams"), [(1, 1), (2, 2)])
def test_baseline_sees_all_labels_and_nothing_else(shades: Path, tmp_path: Path, networks: int, streams: int) -> None:
    keys = WEAK | {"method_enabled": "false", "supervised_networks": networks}
    made = workflow(shades, tmp_path, **keys)
    assert epoch(made) == {"labeled": [set(range(6))] * streams, "unlabeled": []}
    assert made.parser.get_parsed_content("train::unlabeled") is None
    assert made.parser.get_parsed_content("train::method") is None


@pytest.mark.parametrize("networks", [1, 2])
def test_baseline_trains_one_network_or_two_without_unlabeled_files(tmp_path: Path, networks: int) -> None:
    """The unlabeled frames do not even exist: the method says so, the baseline never asks."""
    data = dataset(tmp_path / "data", unlabeled=2)
    for item in json.loads((data / "datalist.json").read_text())["unlabeled"]:
        (data / item["image"]).unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        run(data, tmp_path / "method")
    run(data, tmp_path, method_enabled="false", supervised_networks=networks)
    assert terms(tmp_path) == {"supervised"}
    first, second = halves(tmp_path)
    assert all(torch.equal(first[key], second[key]) for key in first) == (networks == 1)


@pytest.mark.parametrize("key", TERMS)
def test_weight_of_zero_removes_a_term(frames: Path, tmp_path: Path, key: str) -> None:
    run(frames, tmp_path, **{key: 0})
    assert terms(tmp_path) == {*TERMS.values()} - {TERMS[key]}


def test_weights_scale_the_terms(frames: Path, tmp_path: Path) -> None:
    run(frames, tmp_path, epoch_length=1, supervised_weight=2, negative_weight=0, similarity_weight=3, pixel_weight=0)
    with (tmp_path / "history.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    expected = 2 * float(row["supervised"]) + 3 * float(row["similarity"])
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "strength"),
    [
        ({}, "weak"),
        ({"method_enabled": False}, "moderate"),
        *(({"labeled_augmentation": word}, word) for word in ("weak", "moderate", "paper")),
    ],
)
def test_labeled_augmentation(frames: Path, tmp_path: Path, keys: dict[str, Any], strength: str) -> None:
    """Weak leaves a frame as it is; the others change image and mask from draw to draw, the mask staying a mask."""
    made = workflow(frames, tmp_path, **keys)
    assert made.parser.get_parsed_content("train::augmentation").strength == strength
    data = made.parser.get_parsed_content("train::dataset")
    draws = [data[0] for _ in range(6)]
    for key in ("image", "label"):
        assert all(torch.equal(draw[key], draws[0][key]) for draw in draws) == (strength == "weak"), key
    assert {v for draw in draws for v in draw["label"].unique().tolist()} == {0.0, 1.0}


def test_augmented_labeled_frames_train(frames: Path, tmp_path: Path) -> None:
    run(frames, tmp_path, labeled_augmentation="moderate")
    assert terms(tmp_path) == {*TERMS.values()}


def test_unknown_augmentation_is_refused(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paper, moderate, weak"):
        run(frames, tmp_path, labeled_augmentation="strong")


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("as_released", {*TERMS.values()}),
        ("mean_teacher", {"supervised", "consistency"}),
        ("cross_pseudo_supervision", {"supervised", "pseudo"}),
    ],
)
def test_variant_trains(frames: Path, tmp_path: Path, overlay: str, expected: set[str]) -> None:
    made = run(frames, tmp_path, (*TRAIN, overlay))
    assert terms(tmp_path) == expected
    assert int(made.parser.get_parsed_content("train::module").iteration) == 2
    first, second = halves(tmp_path)
    assert any(not torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("overlay", ["mean_teacher", "cross_pseudo_supervision"])
def test_variant_switched_off_is_the_baseline(frames: Path, tmp_path: Path, overlay: str) -> None:
    """The overlay changes the method; without the method nothing of it is left."""
    run(frames, tmp_path / "variant", (*TRAIN, overlay), method_enabled="false")
    run(frames, tmp_path / "plain", method_enabled="false")
    variant, plain = halves(tmp_path / "variant")[0], halves(tmp_path / "plain")[0]
    assert all(torch.equal(variant[key], plain[key]) for key in plain)


def test_accumulation_steps_every_other_batch(frames: Path, tmp_path: Path) -> None:
    made = run(frames, tmp_path, accumulation_steps=2, epoch_length=4)
    state = next(iter(made.parser.get_parsed_content("train::optimizer").state.values()))
    assert int(state["step"]) == 2
