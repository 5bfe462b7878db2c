# SPDX-License-Identifier: Apache-2.0
"""Exact resume, atomic files, safe loading, and what happens to an earlier run."""

from __future__ import annotations

import csv
import json
import logging
import operator
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from safetensors.torch import load_file
from tests.toy import toy_trainer

from fewlabel.errors import ConfigError
from fewlabel.handlers import CheckpointHandler, HistoryHandler, RunFolderHandler


class Killed(RuntimeError):
    """Stands for kill -9."""


class KillAt:
    """Raise in the middle of an epoch."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        @engine.on(Events.ITERATION_COMPLETED)
        def _(engine: Engine) -> None:
            if engine.state.iteration == self.iteration:
                raise Killed


def handlers(folder: Path, kill_at: int | None = None, **options: Any) -> Callable[..., list[Any]]:
    def make(step: Any, optimizer: Any, scheduler: Any) -> list[Any]:
        resume = options.get("resume", "auto")
        made: list[Any] = [
            LrScheduleHandler(scheduler, print_lr=False),
            HistoryHandler(folder / "output"),
            CheckpointHandler(folder / "models", step.network, step, optimizer, scheduler, **options),
            RunFolderHandler(folder / "output", folder / "models", {"run": 1}, resume=resume),
        ]
        return made + ([KillAt(kill_at)] if kill_at else [])

    return make


def weights(trainer: Any) -> list[torch.Tensor]:
    return [v.clone() for v in trainer.module.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("killed_in", [1, 5, 9, 11])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, killed_in: int) -> None:
    whole = toy_trainer(handlers(tmp_path / "a"))
    whole.run()
    with pytest.raises(Killed):
        toy_trainer(handlers(tmp_path / "b", kill_at=killed_in)).run()
    resumed = toy_trainer(handlers(tmp_path / "b"))
    resumed.run()
    assert same(weights(whole), weights(resumed))
    a, b = (torch.load(tmp_path / x / "models/resume/last.pt", weights_only=True) for x in "ab")
    assert str(a["optimizer"]) == str(b["optimizer"]) and a["lr_scheduler"] == b["lr_scheduler"]
    rows = [list(csv.DictReader((tmp_path / x / "output/history.csv").open())) for x in "ab"]
    for row_a, row_b in zip(*rows, strict=True):
        assert {k: v for k, v in row_a.items() if k != "seconds"} == {k: v for k, v in row_b.items() if k != "seconds"}


def test_without_resume_the_weights_differ(tmp_path: Path) -> None:
    """The comparison above can fail: training on from the same place without the optimizer's state gives others."""
    whole = toy_trainer(handlers(tmp_path / "a"))
    whole.run()
    with pytest.raises(Killed):
        toy_trainer(handlers(tmp_path / "b", kill_at=8)).run()
    other = toy_trainer(handlers(tmp_path / "c", init_checkpoint=tmp_path / "b/models/model.pt"))
    other.run()
    assert not same(weights(whole), weights(other))


def test_finished_run_does_nothing_and_more_epochs_continue(tmp_path: Path) -> None:
    toy_trainer(handlers(tmp_path)).run()
    before = (tmp_path / "models/model.pt").read_bytes()
    again = toy_trainer(handlers(tmp_path))
    again.run()
    assert again.module.steps == [] and (tmp_path / "models/model.pt").read_bytes() == before
    longer = toy_trainer(handlers(tmp_path), max_epochs=6)
    longer.run()
    assert longer.module.steps == [13, 14, 15, 16, 17, 18]


class Rates:
    """Remember the learning rate of every step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.seen = optimizer, list[float]()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(
            Events.ITERATION_STARTED, lambda: self.seen.append(self.optimizer.param_groups[0]["lr"])
        )


def test_more_epochs_follow_the_longer_schedule(tmp_path: Path) -> None:
    """The shorter run ended with a rate of 0, with which nothing would be learned."""
    toy_trainer(handlers(tmp_path)).run()
    trainer = toy_trainer(handlers(tmp_path), max_epochs=6)
    rates = Rates(trainer.optimizer)
    rates.attach(trainer)
    trainer.run()
    assert rates.seen == pytest.approx([0.05 * (1 - epoch / 6) ** 0.9 for epoch in (4, 4, 4, 5, 5, 5)])


def test_other_schedules_go_on_as_saved(tmp_path: Path) -> None:
    def step_wise(step: Any, optimizer: Any, _: Any) -> list[Any]:
        return handlers(tmp_path)(step, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1))

    toy_trainer(step_wise, max_epochs=3).run()
    trainer = toy_trainer(step_wise, max_epochs=5)
    rates = Rates(trainer.optimizer)
    rates.attach(trainer)
    trainer.run()
    assert rates.seen == pytest.approx([0.005, 0.005, 0.005, 0.0005, 0.0005, 0.0005])


def test_never_keeps_the_earlier_run(tmp_path: Path) -> None:
    toy_trainer(handlers(tmp_path)).run()
    before = (tmp_path / "models/model.pt").read_bytes()
    toy_trainer(handlers(tmp_path, resume="never"), max_epochs=1).run()
    assert (tmp_path / "models/previous/1/model.pt").read_bytes() == before
    assert (tmp_path / "output/previous/1/history.csv").is_file()
    assert len((tmp_path / "output/history.csv").read_text().splitlines()) == 2


def test_weights_without_state_are_not_overwritten(tmp_path: Path) -> None:
    """A downloaded bundle ships model.pt and nothing to resume from."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").write_bytes(b"shipped")
    toy_trainer(handlers(tmp_path), max_epochs=1).run()
    assert (tmp_path / "models/previous/1/model.pt").read_bytes() == b"shipped"


def test_refused_start_moves_and_writes_nothing(tmp_path: Path) -> None:
    toy_trainer(handlers(tmp_path)).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"init_checkpoint '.*nowhere\.pt' does not exist"):
        toy_trainer(handlers(tmp_path, resume="never", init_checkpoint=tmp_path / "nowhere.pt")).run()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_weights_of_the_earlier_run_can_start_the_next(tmp_path: Path) -> None:
    """They are read before they are moved aside."""
    toy_trainer(handlers(tmp_path), max_epochs=1).run()
    options = {"resume": "never", "init_checkpoint": tmp_path / "models/model.pt"}
    toy_trainer(handlers(tmp_path, **options), max_epochs=1).run()
    assert (tmp_path / "models/previous/1/model.pt").is_file() and (tmp_path / "models/model.pt").is_file()


def test_model_files_hold_the_plain_network(tmp_path: Path) -> None:
    trainer = toy_trainer(handlers(tmp_path))
    trainer.run()
    plain = torch.load(tmp_path / "models/model.pt", weights_only=True)
    safe = load_file(tmp_path / "models/model.safetensors")
    assert list(plain) == list(trainer.module.network.state_dict())
    assert all(torch.equal(plain[k], safe[k]) for k in plain)
    modes = {(tmp_path / "models" / name).stat().st_mode for name in ("model.pt", "model.safetensors")}
    assert len(modes) == 1
    assert sorted(p.name for p in (tmp_path / "models").glob("*.pt")) == ["model.pt"]
    assert not list((tmp_path / "models").rglob("*.tmp"))


def test_resume_file_that_needs_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "models/resume/last.pt"
    file.parent.mkdir(parents=True)
    torch.save({"module": Killed("code")}, file)
    with pytest.raises(ConfigError, match=r"last\.pt' is damaged or holds more than tensors.*--resume never"):
        toy_trainer(handlers(tmp_path)).run()


def test_loss_that_is_not_finite_keeps_the_good_weights(tmp_path: Path) -> None:
    toy_trainer(handlers(tmp_path), max_epochs=4)
    good = toy_trainer(handlers(tmp_path), max_epochs=1)
    good.run()
    before = (tmp_path / "models/model.pt").read_bytes()
    bad = toy_trainer(handlers(tmp_path), max_epochs=3)
    bad.module.register_forward_pre_hook(_spoil)
    with pytest.raises(ConfigError, match="not finite in epoch 2"):
        bad.run()
    assert (tmp_path / "models/model.pt").read_bytes() == before


def _spoil(module: torch.nn.Module, args: tuple[dict[str, torch.Tensor]]) -> None:
    args[0]["x"].fill_(float("nan"))


class Judge:
    """An evaluator that runs after every second epoch and gives out scores in turn."""

    metric_cmp_fn = staticmethod(operator.gt)

    def __init__(self, *scores: float) -> None:
        self.scores = iter(scores)
        self.state = SimpleNamespace(epoch=0, best_metric=-1, best_metric_epoch=-1)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda engine: self.run(engine.state.epoch))

    def run(self, epoch: int = 1) -> None:
        score, self.state.epoch = next(self.scores), epoch
        if score > self.state.best_metric:
            self.state.best_metric, self.state.best_metric_epoch = score, epoch


def judged(folder: Path, judge: Judge, **options: Any) -> dict[int, dict[str, torch.Tensor]]:
    """Train six epochs under a judge; return the weights after each."""
    after: dict[int, dict[str, torch.Tensor]] = {}

    def make(step: Any, optimizer: Any, scheduler: Any) -> list[Any]:
        return [judge, CheckpointHandler(folder, step.network, step, optimizer, evaluator=judge, **options)]  # type: ignore[arg-type]

    trainer = toy_trainer(make, max_epochs=6)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _(engine: Any) -> None:
        after[engine.state.epoch] = {k: v.clone() for k, v in trainer.module.network.state_dict().items()}

    trainer.run()
    return after


def kept(folder: Path, after: dict[int, dict[str, torch.Tensor]]) -> list[int]:
    """Return the epochs whose weights are those of ``model.pt``."""
    model = torch.load(folder / "model.pt", weights_only=True)
    return [epoch for epoch, weights in after.items() if same(list(weights.values()), list(model.values()))]


@pytest.mark.parametrize(
    ("scores", "epoch", "word"),
    [((0.6, 0.7, 0.5), [4], "epoch 4 scores 0.7000: it has replaced"), ((0.4, 0.5, 0.3), [], "the model in use stays")],
)
def test_only_a_better_scored_epoch_replaces_the_model_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scores: tuple[float, ...], epoch: list[int], word: str
) -> None:
    """Neither the epochs before the first score nor those after the best one count as scored."""
    caplog.set_level(logging.INFO, logger="fewlabel")
    network = toy_trainer().module.network
    torch.save({key: value + 1 for key, value in network.state_dict().items()}, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    after = judged(tmp_path, Judge(0.5, *scores), own_data=False)
    assert kept(tmp_path, after) == epoch
    assert ((tmp_path / "model.pt").read_bytes() == before) == (not epoch)
    assert word in caplog.text


def test_best_is_the_epoch_that_was_scored(tmp_path: Path) -> None:
    assert kept(tmp_path, judged(tmp_path, Judge(0.6, 0.7, 0.5), select="best")) == [4]


def test_identity_is_written_beside_the_state(tmp_path: Path) -> None:
    toy_trainer(handlers(tmp_path, identity={"a": 1}), max_epochs=1).run()
    assert json.loads((tmp_path / "models/resume/config.json").read_text()) == {"a": 1}


@pytest.mark.parametrize(("option", "value"), [("resume", "maybe"), ("select", "worst")])
def test_unknown_words_are_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        CheckpointHandler(tmp_path, torch.nn.Identity(), torch.nn.Identity(), None, **{option: value})  # type: ignore[arg-type]
