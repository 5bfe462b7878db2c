# SPDX-License-Identifier: Apache-2.0
"""Kill -9 in mid-epoch, dropout on, the same command again: the weights of an uninterrupted run, bit for bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.bundles.tiny import EVALUATE, TRAIN, command, dataset, run, settings, start

pytestmark = pytest.mark.slow
EPOCHS, PATIENCE_S = 3, 240
PROCESSES = Path("/proc")


@dataclass
class Training:
    """One training on the command line, started as often as it takes."""

    data: Path
    folder: Path
    workers: int = 0
    processes: int = 1
    running: subprocess.Popen[str] | None = None

    @property
    def last(self) -> Path:
        return self.folder / "models" / "resume" / "last.pt"

    def start(self) -> None:
        keys = {"max_epochs": EPOCHS, "epoch_length": 10, "val_interval": 1, "num_workers": self.workers}
        keys |= {"network_def::dropout": 0.3, "label_budget": 4}
        names = (*TRAIN, "multi_gpu_train") if self.processes > 1 else TRAIN
        line = command(names, processes=self.processes, **settings(self.data, self.folder, **keys))
        self.running = start(line, self.folder)

    def finish(self) -> None:
        if self.running is None:
            self.start()
        assert self.running is not None
        try:
            assert self.running.wait(PATIENCE_S) == 0, self.words()
        except subprocess.TimeoutExpired:
            _kill(self.running.pid)
            raise

    def words(self) -> str:
        return "".join((self.folder / f"{name}.txt").read_text()[-3000:] for name in ("stdout", "stderr"))

    def kill_in_mid_epoch(self) -> None:
        """Start, wait for the first saved epoch, let a quarter of the next pass, and kill every process at once."""
        self.start()
        process = self.running
        assert process is not None
        end = time.monotonic() + PATIENCE_S
        while not self.last.is_file():
            assert process.poll() is None and time.monotonic() < end, self.words()
            time.sleep(0.02)
        time.sleep(float(self.history()[0]["seconds"]) / 4)
        _kill(process.pid)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        self.running = None
        assert 1 <= self.state()["epoch"] < EPOCHS
        assert len(self.history()) < EPOCHS

    def history(self) -> list[dict[str, str]]:
        with (self.folder / "history.csv").open() as file:
            return list(csv.DictReader(file))

    def state(self) -> dict[str, Any]:
        return dict(torch.load(self.last, weights_only=True))

    def must_equal(self, other: Training) -> None:
        """Compare weights, the whole state of the optimizer and scheduler, and the history but for its seconds."""
        mine, theirs = (torch.load(t.folder / "models" / "model.pt", weights_only=True) for t in (self, other))
        _same(mine, theirs, "model")
        _same(load_file(self.folder / "models" / "model.safetensors"), mine, "safetensors")
        _same(self.state(), other.state(), "last")
        for ours, others in zip(self.history(), other.history(), strict=True):
            assert {**ours, "seconds": ""} == {**others, "seconds": ""}


def _kill(pid: int) -> None:
    for member in _family(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and all that descend from it; torchrun's workers lead sessions of their own."""
    parents = {int(p.name): _parent(p) for p in PROCESSES.iterdir() if p.name.isdigit()}
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            _same(*pair, f"{where}.{i}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (PROCESSES / "self").exists():
        pytest.skip("finds the processes to kill in /proc")
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """The uninterrupted run in one process without workers; it runs beside the first that is killed."""
    training = Training(data, tmp_path_factory.mktemp("whole"))
    training.start()
    yield training
    training.finish()


@pytest.fixture(scope="module")
def whole_of_two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """The uninterrupted run in two processes."""
    training = Training(data, tmp_path_factory.mktemp("whole-2"), processes=2)
    training.finish()
    yield training


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(whole: Training, tmp_path: Path, workers: int) -> None:
    """Two workers are compared with none, so that their number does not matter either."""
    killed = Training(whole.data, tmp_path, workers)
    killed.kill_in_mid_epoch()
    killed.finish()
    assert "resuming after epoch" in killed.words()
    whole.finish()
    killed.must_equal(whole)


def test_killed_and_resumed_in_two_processes(whole_of_two: Training, tmp_path: Path) -> None:
    killed = Training(whole_of_two.data, tmp_path, processes=2)
    killed.kill_in_mid_epoch()
    killed.finish()
    killed.must_equal(whole_of_two)


def test_two_processes_train_other_weights_than_one(whole: Training, whole_of_two: Training) -> None:
    """The comparisons above can fail: twice the images a step, another result."""
    whole.finish()
    with pytest.raises(AssertionError, match=r"model\."):
        whole_of_two.must_equal(whole)


def test_evaluating_in_two_processes_finds_what_one_finds(whole: Training, tmp_path: Path) -> None:
    """Three cases over two processes: none is counted twice to make the shares even."""
    whole.finish()
    ckpt_dir = str(whole.folder / "models")
    keys = {"ckpt_dir": ckpt_dir, "network_def::dropout": 0.3}
    run(whole.data, tmp_path / "one", EVALUATE, "evaluating", **keys)
    line = command(
        (*TRAIN, "multi_gpu_train", "evaluate"),
        "evaluating",
        processes=2,
        **settings(whole.data, tmp_path / "two", **keys),
    )
    code = start(line, tmp_path / "two").wait(PATIENCE_S)
    assert code == 0, (tmp_path / "two" / "stderr.txt").read_text()[-3000:]
    one, two = (_cases(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys() == {f"images/f{i}.png" for i in (10, 11, 12)}
    for case, row in one.items():
        words = {key for key in row if key in ("list", "video", "group")}
        assert {key: row[key] for key in words} == {key: two[case][key] for key in words}
        figures = [{k: float(v) for k, v in found.items() if k not in words} for found in (row, two[case])]
        assert len(figures[0]) >= 3 and figures[0] == pytest.approx(figures[1])
    one_mean, two_mean = (_metrics(tmp_path / name) for name in ("one", "two"))
    assert one_mean["cases"] == two_mean["cases"] == 3 and one_mean["list"] == two_mean["list"] == "test"
    assert one_mean["metrics"] == pytest.approx(two_mean["metrics"])


def _cases(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "metrics_per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    cases = {row.pop("case"): row for row in rows}
    assert len(cases) == len(rows), "a case stands there twice"
    return cases


def _metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))
