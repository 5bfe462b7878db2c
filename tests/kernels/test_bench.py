# SPDX-License-Identifier: Apache-2.0
"""The benchmark script runs from anywhere, appends and never edits, and measures what it says."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "bench" / "run.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.bench.run")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_quick_run_appends_rows(tmp_path: Path) -> None:
    options = ["--case", "contrast", "--device", "cpu", "--quick", "true", "--results", str(tmp_path)]
    command, alone = [sys.executable, SCRIPT, *options], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "times the bound" in done.stdout
    rows = rows_of(tmp_path / "contrast.csv")
    assert {row["gradient"] for row in rows} == {"none", "query", "both", "symmetric"}
    (ran,) = rows_of(tmp_path / "environments" / "runs.csv")
    assert {key: ran[key] for key in ("date", "commit", "case")} == {k: rows[0][k] for k in ("date", "commit", "case")}
    assert ran["numba"] == numba.__version__
    for row in rows:
        assert float(row["q25_ms"]) <= float(row["median_ms"]) <= float(row["q75_ms"])
        assert float(row["max_deviation"]) <= 2e-6
        assert row["queued_ms"] == "nan", "a CPU has no queue"
        if row["implementation"] == "tiled":
            assert float(row["memory_ratio"]) < 0.5
        if row["implementation"] == "dense":
            assert float(row["peak_mib"]) >= 2304**2 * 4 / 2**20


def test_rows_are_appended_never_edited(bench: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.csv"
    bench.write([{"a": 1, "b": 2}], path)
    before = path.read_text()
    bench.write([{"a": 3, "b": 4}], path)
    assert path.read_text() == before + "3,4\n"
    with pytest.raises(ValueError, match=r"x\.csv has columns"):
        bench.write([{"a": 1, "c": 2}], path)
    assert path.read_text() == before + "3,4\n"


@pytest.mark.parametrize(("word", "written"), [("false", False), (False, False), ("true", True), (True, True)])
def test_words_of_the_command_line(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str | bool, written: bool
) -> None:
    stamp = {"date": "1", "commit": "2", "device": "3", "threads": "4"}
    monkeypatch.setattr(bench, "run", lambda case, _, quick, budget_s: [[stamp | {"case": case.name, "quick": quick}]])
    bench.main("contrast", "cpu", append=word, quick=word, results=str(tmp_path))
    assert (tmp_path / "contrast.csv").is_file() == written
    if written:
        assert rows_of(tmp_path / "contrast.csv") == [stamp | {"case": "contrast", "quick": "True"}]


def test_unknown_case_names_those_that_exist(bench: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"no case 'contrsat'.*contrast"):
        bench.cases.load("contrsat")
    assert "contrast" in bench.cases.names()


def test_published_rows_have_the_columns_of_today(bench: ModuleType) -> None:
    """Who changes the columns starts a new file."""
    for name in bench.cases.names():
        problem = bench.cases.load(name).problems[0]
        rows = rows_of(ROOT / "tools" / "bench" / "results" / f"{name}.csv")
        assert rows
        assert set(problem.columns) < set(rows[0])
        assert {row["case"] for row in rows} == {name}


def test_peak_memory_of_a_known_call(bench: ModuleType) -> None:
    def call() -> torch.Tensor:
        first = torch.zeros(1_000_000)
        second = first + 1  # 8 MB live here
        del first
        return second.sum()

    measure = importlib.import_module("tools.bench.measure")
    assert measure.peak_bytes(call, torch.device("cpu")) == pytest.approx(8e6, rel=0.01)
    assert measure.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)


def test_bound_is_the_slowest_resource(bench: ModuleType) -> None:
    machine = bench.Machine.__new__(bench.Machine)
    machine.gflop_per_s, machine.gexp_per_s, machine.gbyte_per_s = 100.0, 10.0, 1.0
    work = importlib.import_module("tools.bench.case").Work
    assert machine.bound_ms(work(1.0, 0.05, 0.002)) == pytest.approx(10.0)
    assert machine.bound_ms(work(0.1, 0.05, 0.002)) == pytest.approx(5.0)
    assert machine.bound_ms(work(0.1, 0.0, 0.002)) == pytest.approx(2.0)


def test_a_timed_call_follows_one_of_its_own(bench: ModuleType) -> None:
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) for name in "abc"}
    times = bench.rounds(calls, torch.device("cpu"), 4, 10.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert len(made) == 24
    assert made[::2] == made[1::2]
    made.clear()
    bench.rounds(calls, torch.device("cpu"), 3, 10.0)
    assert len(made) == 9, "long problems: every call is timed"


def test_random_results_are_compared_as_the_problem_says(bench: ModuleType) -> None:
    problem = importlib.import_module("tools.bench.cases.samples").CASE.problems[0]
    index = problem.make(torch.device("cpu"))
    drawn = {name: [form(*index)] for name, form in problem.implementations.items()}
    assert not torch.equal(drawn["kernel"][0], drawn["loop"][0])
    regions = [bench._compared(problem, results, index)[0] for results in drawn.values()]
    assert all(torch.equal(regions[0], other) for other in regions)
