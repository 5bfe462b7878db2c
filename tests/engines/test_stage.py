# SPDX-License-Identifier: Apache-2.0
"""Stages are done once for their inputs, and again when what they made is gone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.toy import toy_trainer

from fewlabel.engines import Stage
from fewlabel.errors import ConfigError
from fewlabel.handlers import CheckpointHandler


def stage(folder: Path, scale: int = 1) -> Stage:
    return Stage("pseudo_labels", folder, {"scale": scale})


def work(calls: list[str], target: Path, scale: int = 1) -> None:
    calls.append(target.name)
    (target / "masks").mkdir(exist_ok=True)
    (target / "masks" / "a.txt").write_text("mask" * scale)


def test_building_touches_nothing(tmp_path: Path) -> None:
    assert stage(tmp_path / "new").folder.parent == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[str] = []
    first = stage(tmp_path).run(partial(work, calls))
    assert stage(tmp_path).run(partial(work, calls)) == first == stage(tmp_path).folder and len(calls) == 1


def test_other_inputs_get_another_folder(tmp_path: Path) -> None:
    calls: list[str] = []
    folders = [stage(tmp_path, scale).run(partial(work, calls)) for scale in (1, 2, 1)]
    assert folders[0] == folders[2] != folders[1] and len(calls) == 2


def test_missing_result_is_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    folder = stage(tmp_path).run(partial(work, calls))
    (folder / "masks" / "a.txt").unlink()
    assert not stage(tmp_path).is_done()
    stage(tmp_path).run(partial(work, calls))
    assert len(calls) == 2 and (folder / "masks" / "a.txt").is_file()


def test_killed_work_leaves_no_marker(tmp_path: Path) -> None:
    def killed(target: Path) -> None:
        (target / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path).run(killed)
    assert not stage(tmp_path).is_done()
    stage(tmp_path).run(partial(work, []))
    assert stage(tmp_path).is_done()


def test_a_trainer_is_work_without_a_folder(tmp_path: Path) -> None:
    pretraining = Stage("pretraining", tmp_path, {"seed": 0}, every_rank=True)
    for ran in (True, False):
        trainer = toy_trainer(
            lambda step, optimizer, _: [CheckpointHandler(pretraining.folder, step.network, step, optimizer)]
        )
        assert pretraining.run(trainer.run) == pretraining.folder
        assert bool(trainer.module.steps) == ran and pretraining.is_done()
    assert (pretraining.folder / "model.pt").is_file()


@pytest.mark.parametrize("arguments", [0, 1])
def test_arguments_with_a_default_are_left_alone(tmp_path: Path, arguments: int) -> None:
    seen: list[object] = []
    kinds: list[Callable[..., None]] = [
        lambda epoch=7, *rest, key=1: seen.append(epoch),
        lambda folder, epoch=7: seen.append((folder, epoch)),
    ]
    folder = stage(tmp_path).run(kinds[arguments])
    assert seen == [[7], [(folder, 7)]][arguments]


def test_work_of_two_arguments_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"needs \['calls', 'target'\], expected a folder or nothing"):
        stage(tmp_path / "new").run(work)
    assert not (tmp_path / "new").exists()


def test_a_stage_depends_on_the_stages_before_it(tmp_path: Path) -> None:
    def after(scale: int) -> Stage:
        return Stage("training", tmp_path, {"masks": stage(tmp_path, scale), "epochs": 3})

    assert after(1).folder == after(1).folder != after(2).folder
    assert after(1).inputs == {"epochs": 3, "masks": stage(tmp_path).folder.name}


def test_inputs_that_take_reading_are_read_when_the_folder_is_asked_for(tmp_path: Path) -> None:
    calls: list[int] = []
    lazy = Stage("pseudo_labels", tmp_path, lambda: calls.append(1) or {"scale": 1})  # type: ignore[func-returns-value]
    assert calls == []
    assert lazy.folder == stage(tmp_path).folder and not lazy.is_done() and calls == [1]


def test_the_folder_is_the_same_in_every_process_and_order() -> None:
    made = Stage("a", "out", {"path": Path("x"), "device": torch.device("cpu"), "list": [1, {"b": None}], "z": 0.1})
    same = Stage("a", "out", {"z": 0.1, "list": (1, {"b": None}), "device": "cpu", "path": "x"})
    assert made.folder == same.folder == Path("out/a-6a0b8c5b3aae")


def test_inputs_without_a_lasting_name_are_refused(tmp_path: Path) -> None:
    """Their text would hold an address, and the stage would be done again in every process."""
    with pytest.raises(TypeError, match="an input of stage pseudo_labels is a Linear"):
        _ = Stage("pseudo_labels", tmp_path, {"network": torch.nn.Linear(1, 1)}).folder


def test_a_stage_that_others_need_must_be_done(tmp_path: Path) -> None:
    stage = Stage("masks", tmp_path)
    with pytest.raises(ConfigError, match=r"stage masks is not done in '.*masks-\w+': run training"):
        stage.require()
    assert stage.run(lambda folder: (folder / "a.txt").write_text("a")) == stage.require()
    (stage.folder / "a.txt").write_text("half of it was lost")
    with pytest.raises(ConfigError, match="is not done"):
        stage.require()


def test_what_is_drawn_later_does_not_depend_on_whether_there_was_work(tmp_path: Path) -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        Stage("drawing", tmp_path).run(lambda: torch.rand(3))
        draws.append(torch.rand(2))
    assert torch.equal(*draws)
