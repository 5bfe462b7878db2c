# SPDX-License-Identifier: Apache-2.0
"""No label beyond the budget teaches: planted wrong, it leaves the weights as they are; indeed it is not even read."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundles.tiny import EVALUATE, INFERENCE, SIZE, TRAIN, dataset, run

from fewlabel.data import read_datalist, splits

BUDGET = 4
METHODS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "min-max similarity": (TRAIN, {}),
    "mean teacher": (("train", "mean_teacher", "light"), {}),
    "cross pseudo supervision": (("train", "cross_pseudo_supervision", "light"), {}),
    "baseline": (TRAIN, {"method_enabled": False}),
}


def labels(items: Iterable[dict[str, Any]]) -> set[str]:
    return {item["label"] for item in items}


def drawn(data: Path) -> set[str]:
    """Label files of the items that the budget draws."""
    return labels(splits(data, label_budget=BUDGET).labeled)


def invert(file: str) -> None:
    """Plant the opposite; it is not empty, so that the draw, which passes over empty masks, stays the same."""
    mask = np.asarray(Image.open(file))
    Image.fromarray((1 - mask).astype(np.uint8)).save(file)


def poisoned(data: Path, to: Path, which: Callable[[Path], Iterable[str]]) -> Path:
    """Return a copy of the data in which some labels are wrong."""
    copy = Path(shutil.copytree(data, to))
    for file in which(copy):
        invert(file)
    return copy


def beyond_the_budget(data: Path) -> set[str]:
    """Labels of what the budget leaves over, of validation and of test."""
    source = read_datalist(data)
    return labels([*source.training, *source.validation, *source.test]) - drawn(data)


def train(data: Path, out: Path, names: tuple[str, ...], **keys: Any) -> dict[str, torch.Tensor]:
    """Train, validating in every epoch, and return all tensors of the resume state, the model's and the optimizer's."""
    run(data, out, names, max_epochs=2, val_interval=1, label_budget=BUDGET, **keys)
    return dict(_tensors("", torch.load(out / "models" / "resume" / "last.pt", weights_only=True)))


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(f"{name}.{key}", part)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys() and len(a) > 100
    return all(torch.equal(a[key], b[key]) for key in a)


def history(out: Path, *columns: str) -> list[list[str]]:
    with (out / "history.csv").open() as file:
        return [[row[column] for column in columns] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("method", METHODS)
def test_wrong_labels_beyond_the_budget_change_no_weight(data: Path, tmp_path: Path, method: str) -> None:
    names, keys = METHODS[method]
    wrong = poisoned(data, tmp_path / "wrong", beyond_the_budget)
    assert len(beyond_the_budget(data)) == (8 - BUDGET) + 2 + 3
    assert same(train(data, tmp_path / "a", names, **keys), train(wrong, tmp_path / "b", names, **keys))
    loss_a, loss_b = (history(tmp_path / name, "loss") for name in "ab")
    dice_a, dice_b = (history(tmp_path / name, "mean_dice") for name in "ab")
    assert loss_a == loss_b
    assert dice_a != dice_b, "the validation reads the planted labels, and only its figures show it"


@pytest.mark.parametrize("method", METHODS)
def test_one_wrong_label_within_the_budget_changes_the_weights(data: Path, tmp_path: Path, method: str) -> None:
    """The test above can fail."""
    names, keys = METHODS[method]
    wrong = poisoned(data, tmp_path / "wrong", lambda copy: sorted(drawn(copy))[:1])
    assert not same(train(data, tmp_path / "a", names, **keys), train(wrong, tmp_path / "b", names, **keys))


_watched: dict[str, set[str]] = {}


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - cheap; this sees every file of the process
        for root, opened in _watched.items():
            if path.startswith(root):
                opened.add(path)


@contextmanager
def watching(folder: Path) -> Iterator[set[str]]:
    """Collect every file below ``folder`` that this process opens, in any thread and by any library."""
    if not hasattr(sys, "_fewlabel_leak_hook"):  # a hook cannot be taken off again
        sys.addaudithook(_on_event)
        sys._fewlabel_leak_hook = True  # type: ignore[attr-defined]
    _watched[f"{folder}{os.sep}"] = opened = set()
    try:
        yield opened
    finally:
        _watched.clear()


def images(items: Iterable[dict[str, Any]]) -> set[str]:
    return {item["image"] for item in items}


@pytest.mark.parametrize("method", METHODS)
def test_training_opens_no_label_beyond_the_budget(tmp_path: Path, method: str) -> None:
    """One exception is meant: the draw looks whether masks are empty, in its order, until the budget is filled.

    Here the first mask is, so it is passed over: opened, not drawn, and never handed to the method.
    """
    folder = dataset(tmp_path / "data")
    first = splits(folder, label_budget=1).labeled[0]["label"]
    Image.fromarray(np.zeros((SIZE[1], SIZE[0]), np.uint8)).save(first)
    names, keys = METHODS[method]
    with watching(folder) as opened:
        train(folder, tmp_path / "out", names, **keys)
    source, split = read_datalist(folder), splits(folder, label_budget=BUDGET)
    assert first not in labels(split.labeled)
    seen_labels = {file for file in opened if f"{os.sep}labels{os.sep}" in file}
    assert seen_labels == labels(split.labeled) | {first} | labels(source.validation)
    unlabeled = images(split.unlabeled) if keys.get("method_enabled", True) else set()
    assert opened - seen_labels - {str(folder / "datalist.json")} == (
        images(split.labeled) | unlabeled | images(source.validation)
    )


def test_evaluating_opens_the_test_list_alone_and_inference_no_label(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    run(folder, tmp_path / "out", label_budget=BUDGET)
    test = read_datalist(folder).test
    with watching(folder) as opened:
        run(folder, tmp_path / "out", EVALUATE, "evaluating", label_budget=BUDGET)
    assert opened - {str(folder / "datalist.json")} == images(test) | labels(test)
    with watching(folder) as opened:
        run(folder / "images", tmp_path / "out", INFERENCE, "inference")
    assert opened == {str(file) for file in (folder / "images").iterdir()}
