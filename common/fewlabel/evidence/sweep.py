# SPDX-License-Identifier: Apache-2.0
"""Run what is missing of a plan, one process a run, and append a row to the CSV for each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fewlabel.evidence.child import PRELOAD, Job, work
from fewlabel.evidence.forecast import PILOT_EPOCHS, epochs_of, known_minutes, pilot_minutes
from fewlabel.evidence.plan import Plan, Run
from fewlabel.evidence.pool import run_jobs
from fewlabel.evidence.results import row_of
from fewlabel.evidence.rows import append_row, read_rows, run_of


@dataclass
class Sweep:
    """A plan on its way: what is done, what is left, how long it takes.

    Args:
        plan: what to compare.
        csv_file: rows are read from here and appended here.
        runs_dir: folders of the runs.
        keys: config keys of every run (``dataset_dir``, say); a variant's own win.
        variants: names; None takes all that are not optional.
        jobs: processes at a time.
        devices: given to the processes in turn; empty leaves the choice to the config.
        max_minutes: no run starts that would end later, as far as one can tell; None has no limit.
        others: further CSV files, of other machines, whose runs are not repeated.
    """

    plan: Plan
    csv_file: Path
    runs_dir: Path
    keys: Mapping[str, Any] = field(default_factory=dict)
    variants: Sequence[str] | None = None
    jobs: int = 1
    devices: Sequence[str] = ()
    max_minutes: float | None = None
    others: Sequence[str | Path] = ()

    def __post_init__(self) -> None:
        done = {run_of(row) for row in read_rows([self.csv_file, *self.others])}
        self.todo = [run for run in self.plan.runs(self.variants) if run not in done]
        self.minutes = known_minutes(read_rows([self.csv_file, *self.others]))
        self._started = 0

    def pilot(self) -> list[str]:
        """Time two epochs and an evaluation of every variant whose cost is unknown.

        Returns:
            Variants whose pilot failed; their logs say why.
        """
        first = {run.variant: run for run in reversed(self.todo) if run.variant not in self.minutes}
        jobs = [(run, self._job(run, pilot=True)) for run in first.values()]
        failed = []
        bar = tqdm(run_jobs(jobs, work, self.jobs, PRELOAD), "pilot", len(jobs), unit="variant", disable=not jobs)
        for run, code in bar:
            if code:
                failed.append(run.variant)
            else:
                epochs = epochs_of(self.plan.bundle, self.plan.configs(run), self._keys(run))
                self.minutes[run.variant] = pilot_minutes(self._folder(run, pilot=True), epochs)
        return failed

    def hours(self) -> float:
        """Return the predicted hours of what is left, all processes at work."""
        return sum(self.minutes.get(run.variant, 0.0) for run in self.todo) / 60 / self.jobs

    def run(self) -> list[Run]:
        """Run what is left.

        Returns:
            Runs that failed; their logs say why, and a further sweep tries them again.
        """
        failed: list[Run] = []
        began = time.monotonic()
        with tqdm(total=len(self.todo), unit="run", desc="sweep", dynamic_ncols=True) as bar:
            for run, code in run_jobs(self._jobs(began), work, self.jobs, PRELOAD):
                if code:
                    failed.append(run)
                    bar.write(f"{run.folder} failed: see {self._folder(run) / 'log.txt'}")
                else:
                    append_row(self.csv_file, row_of(run, self._folder(run)))
                self.todo.remove(run)
                bar.set_postfix_str(f"about {60 * self.hours():.0f} min left, newest {run.folder}")
                bar.update()
        return failed

    def _jobs(self, began: float) -> Iterator[tuple[Run, Job]]:
        for run in list(self.todo):
            end = (time.monotonic() - began) / 60 + self.minutes.get(run.variant, 0.0)
            if self.max_minutes is not None and end > self.max_minutes:
                continue
            yield run, self._job(run)

    def _job(self, run: Run, pilot: bool = False) -> Job:
        folder = self._folder(run, pilot)
        keys = self._keys(run) | {"output_dir": str(folder), "ckpt_dir": str(folder / "models")}
        if pilot:
            keys |= {"max_epochs": PILOT_EPOCHS, "resume": "never"}
        if self.devices:
            keys["device"] = self.devices[self._started % len(self.devices)]
        self._started += 1
        threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, (os.cpu_count() or 1) // self.jobs)
        return Job(self.plan.bundle, self.plan.configs(run), keys, folder, threads)

    def _keys(self, run: Run) -> dict[str, Any]:
        return self.plan.settings(run, self.keys)

    def _folder(self, run: Run, pilot: bool = False) -> Path:
        return self.runs_dir / "pilot" / run.variant if pilot else self.runs_dir / run.folder
