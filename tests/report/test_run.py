# SPDX-License-Identifier: Apache-2.0
"""A run folder is read as far as it goes, and says what it lacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.report.folders import SCORES, evaluated, pictured, trained, whole, write_json, write_table

from fewlabel.errors import ConfigError
from fewlabel.report import read_run
from fewlabel.report.run import mean_sd


def test_whole_folder_lacks_nothing(tmp_path: Path) -> None:
    run = read_run(whole(tmp_path))
    assert run.missing() == []
    assert (run.title, run.method, run.is_baseline) == ("Tools in <frames>", "min max similarity", False)
    assert (run.epochs, run.seconds, run.key_metric) == ((3, 3), 61.5, "mean_dice")
    assert run.scores() == SCORES and run.cases.groups == ("v0", "v1") * 3


def test_keys_are_those_above_the_machinery_with_expressions_worked_out(tmp_path: Path) -> None:
    keys = read_run(trained(tmp_path)).keys
    assert keys["labeled_augmentation"] == "weak" and keys["spatial_size"] == [96, 128]
    assert not {"imports", "package", "train"} & keys.keys()


def test_curves_tell_terms_from_metrics(tmp_path: Path) -> None:
    training, metrics = read_run(trained(tmp_path)).curves()
    assert list(training) == ["loss", "supervised", "lr"] and training["loss"] == ([1, 2, 3], [4.0, 2.0, 4 / 3])
    assert metrics == {"mean_dice": ([2], [0.2])}


def test_curves_of_an_older_history_whose_metrics_stand_among_the_terms(tmp_path: Path) -> None:
    evaluated(trained(tmp_path))
    write_table(tmp_path / "history.csv", [{"epoch": 1, "loss": 2, "mean_dice": 0.5, "lr": 0.1, "seconds": 1}])
    training, metrics = read_run(tmp_path).curves()
    assert list(training) == ["loss", "lr"] and list(metrics) == ["mean_dice"]


def test_key_metric_of_several_classes_is_their_mean_where_they_have_one(tmp_path: Path) -> None:
    evaluated(tmp_path, columns={"mean_dice": ["mean_dice", "mae"]})
    assert read_run(tmp_path).scores() == (0.5,) * 6
    write_table(tmp_path / "metrics_per_case.csv", [{"case": "a", "mean_dice": "nan", "mae": 0.25}])
    assert read_run(tmp_path).scores() == (0.25,)


def test_evaluation_of_an_earlier_version_is_ranked_by_its_first_metric(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"list": "test", "cases": 1, "metrics": {"mean_iou": 0.5, "other": 1}})
    write_table(tmp_path / "metrics_per_case.csv", [{"case": "a", "mean_iou": 0.5}])
    run = read_run(tmp_path)
    assert (run.key_metric, run.scores(), run.cases.groups) == ("mean_iou", (0.5,), ())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f: trained(f, epochs=2), "2 of 3 epochs are done"),
        (trained, "has not been evaluated yet"),
        (evaluated, "nothing is known of the training"),
        (lambda f: evaluated(trained(f)), "kept no pictures"),
        (lambda f: (whole(f) / "split.json").unlink(), "put in from outside"),
        (lambda f: (whole(f) / "history.csv").unlink(), "no epoch of a training has ended"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, make: Callable[[Path], object], sentence: str) -> None:
    make(tmp_path)
    assert any(sentence in text for text in read_run(tmp_path).missing())


def test_other_folders_and_broken_files_are_refused_by_name(tmp_path: Path) -> None:
    pictured(tmp_path)
    with pytest.raises(ConfigError, match=r"is no run folder: it holds none of run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"keys": ')
    with pytest.raises(ConfigError, match=r"run\.json' cannot be read"):
        read_run(tmp_path)


def test_mean_and_sd_leave_out_what_is_no_number() -> None:
    assert all(map(math.isnan, mean_sd([])))
    assert mean_sd([2.0])[0] == 2.0 and math.isnan(mean_sd([2.0, math.nan])[1])
    assert mean_sd([1.0, math.inf])[0] == math.inf and math.isnan(mean_sd([1.0, math.inf])[1])
