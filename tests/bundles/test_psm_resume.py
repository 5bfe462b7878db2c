# SPDX-License-Identifier: Apache-2.0
"""Kill -9 in every stage, the same command again: the results of an uninterrupted run, bit for bit."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.bundles.nuclei import PATIENCE_S, dataset, killed, run, stage
from tests.bundles.test_resume import _same
from tests.bundles.tiny import NUCLEI, command, settings, start

# In a training between the weights of the second epoch and its state: the epoch is lost. The last one is killed in its
# first epoch too, so that it starts again beside stages that are done.
KILLS = [
    ("*/pretraining-*/resume/last.pt", 2),
    ("*/pseudo_labels-*/mask/*.png", 3),
    ("*/point_training-*/resume/last.pt", 2),
    ("*/voronoi_labels-*/voronoi/*.png", 2),
    ("*/models/resume/last.pt", 1),
    ("*/models/resume/last.pt", 2),
]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_killed_in_every_stage_equals_uninterrupted(tmp_path: Path) -> None:
    """Each kill goes on from what the one before left; the last command is typed as a user does."""
    data, whole, again = dataset(tmp_path / "data"), tmp_path / "whole", tmp_path / "again"
    run(data, whole)
    kept: dict[Path, int] = {}
    for pattern, count in KILLS:
        killed(partial(run, data, again), pattern, count)
        assert all(file.stat().st_mtime_ns == time for file, time in kept.items()), "what was done is done again"
        done = [marker.parent for marker in again.glob("stages/*/stage.json")]
        kept = {file: file.stat().st_mtime_ns for folder in done for file in folder.rglob("*") if file.is_file()}
        kept |= {file: file.stat().st_mtime_ns for file in again.glob("stages/*/mask/*.png")}
    line = command(bundle=NUCLEI, **settings(data, again, NUCLEI))
    code = start(line, again).wait(PATIENCE_S)
    assert code == 0, (again / "stderr.txt").read_text()[-3000:]
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    for place in (
        lambda out: out / "models",
        partial(stage, name="pretraining"),
        partial(stage, name="point_training"),
    ):
        for file in ("model.pt", "resume/last.pt"):
            ours, theirs = (torch.load(place(out) / file, weights_only=True) for out in (again, whole))
            _same(ours, theirs, file)
    for place in (lambda out: out, partial(stage, name="pretraining"), partial(stage, name="point_training")):
        assert rows(place(again)) == rows(place(whole))
    pictures = sorted(file.relative_to(whole) for file in whole.glob("stages/*/*/*.png"))
    assert len(pictures) == 16
    assert all((again / name).read_bytes() == (whole / name).read_bytes() for name in pictures)
