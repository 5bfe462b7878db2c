# SPDX-License-Identifier: Apache-2.0
"""While a trainer runs, the labels that its split holds back stay closed; before and after they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from tests.data.pictures import dataset
from tests.toy import toy_trainer

from fewlabel.data import Splits, read_datalist, splits
from fewlabel.errors import ConfigError
from fewlabel.handlers import LeakGuardHandler, ProgressHandler


@pytest.fixture
def data(tmp_path: Path) -> Path:
    test = [{"image": "images/t.png", "label": "labels/t.png"}]
    root = dataset(tmp_path / "data", training=4, test=test)
    for kind in ("images", "labels"):
        (root / kind / "t.png").write_bytes((root / kind / "f00.png").read_bytes())
    return root


def engine(splits: Splits | None, act: Callable[[], Any], **options: Any) -> Engine:
    """Return an engine with the guard whose step does something."""
    made = Engine(lambda engine, batch: act())
    LeakGuardHandler(splits, **options).attach(made)
    return made


def read(files: list[str]) -> list[int]:
    return [len(Path(file).read_bytes()) for file in files]


def test_what_the_budget_leaves_over_and_the_test_list_are_held_back(data: Path) -> None:
    split = splits(data, label_budget=1)
    source = read_datalist(data)
    drawn = split.labeled[0]["label"]
    expected = {item["label"] for item in (*source.training, *source.test)} - {drawn}
    assert split.held_back.keys() == expected and len(expected) == 4
    for file, why in split.held_back.items():
        reason = 'is in the list "test"' if file.endswith("t.png") else "label_budget 1 holds back"
        assert why == f"images/{Path(file).name}, which {reason}"
        with pytest.raises(ConfigError, match=why.replace(".", r"\.")):
            engine(split, lambda file=file: read([file])).run([0])
    read(sorted(expected))
    assert "held_back" not in split.as_dict() and "held_back" not in repr(split)


def test_other_label_files_of_an_item_are_held_back_too(data: Path) -> None:
    """What an unlabeled item loses, nobody may look up."""
    extra = data / "labels" / "contour.npy"
    extra.write_bytes(b"x")
    item = {"image": "images/f00.png", "label": "labels/f00.png", "contour": "labels/contour.npy", "class_label": 1}
    other = {"image": "images/f01.png", "label": "labels/f01.png", "contour": "labels/contour.npy", "class_label": 1}
    (data / "two.json").write_text(__import__("json").dumps({"training": [item, other]}))
    split = splits(data, "two.json", label_budget=1)
    assert {Path(file).name for file in split.held_back} == {"contour.npy", Path(split.unlabeled[0]["image"]).name}


def test_everything_that_training_needs_can_be_read(data: Path) -> None:
    split = splits(data, label_budget=2)
    items = (*split.labeled, *split.validation, *split.unlabeled)
    files = [item[key] for item in items for key in ("image", "label") if key in item]
    engine(split, lambda: read(files)).run([0])


@pytest.mark.parametrize(("budget", "own"), [(1, False), (None, True)])
def test_nothing_is_refused_where_nothing_is_held_back(data: Path, budget: int | None, own: bool) -> None:
    """MONAI Label's own list may hold any label."""
    split = splits(data, label_budget=budget)
    labels = [item["label"] for item in read_datalist(data).training]
    engine(split, lambda: read(labels), own_data=own).run([0])
    engine(None, lambda: read(labels)).run([0])


def test_events_before_the_first_step_are_covered(data: Path) -> None:
    split = splits(data, label_budget=1)
    made = engine(split, lambda: None)
    made.add_event_handler(Events.STARTED, lambda: read(list(split.held_back)))
    with pytest.raises(ConfigError):
        made.run([0])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConfigError])
def test_after_any_error_the_guard_is_off(data: Path, error: type[BaseException]) -> None:
    """Also where another handler raises the error again, which keeps later ones from hearing of it."""
    split = splits(data, label_budget=1)

    def fail() -> None:
        raise error("stop")

    made = toy_trainer([ProgressHandler(), LeakGuardHandler(split)])
    made.add_event_handler(Events.ITERATION_COMPLETED(once=2), fail)
    with pytest.raises(error):
        made.run()
    read(list(split.held_back))


def test_two_runs_in_one_process_have_guards_of_their_own(data: Path) -> None:
    first, second = splits(data, label_budget=1), splits(data, label_budget=1, split_seed=1)
    labels = [split.labeled[0]["label"] for split in (first, second)]
    assert labels[0] != labels[1]
    made = [engine(first, lambda: read(labels[:1])), engine(second, lambda: read(labels[1:]))]
    for trainer in (*made, made[0]):
        trainer.run([0])
    with pytest.raises(ConfigError):
        engine(first, lambda: read(labels[1:])).run([0])
    made[1].run([0])


def test_trained_weights_are_the_same_with_the_guard(data: Path) -> None:
    runs = [toy_trainer(handlers) for handlers in ([], [LeakGuardHandler(splits(data, label_budget=1))])]
    for trainer in runs:
        trainer.run()
    plain, guarded = (dict(trainer.module.state_dict()) for trainer in runs)
    assert all(torch.equal(plain[key], guarded[key]) for key in plain)


def test_label_in_an_unlabeled_batch_fails_the_run() -> None:
    batch = {"labeled": [{"image": 0, "label": 0}], "unlabeled": {"image": 0, "label": 0}}
    made = engine(None, lambda: None)
    with pytest.raises(ConfigError, match=r"unlabeled batch of iteration 1 carries a 'label'"):
        made.run([batch])
    del batch["unlabeled"]["label"]  # type: ignore[attr-defined]
    made.run([batch])
    engine(None, lambda: None).run([0, {"unlabeled": None}])
