# SPDX-License-Identifier: Apache-2.0
"""Which folder is the baseline of a run, and what the difference is."""

from __future__ import annotations

import json
import logging
import statistics
from pathlib import Path

import pytest
from tests.report.folders import SCORES, evaluated, trained, write_json

from fewlabel.errors import ConfigError
from fewlabel.report import compare, find_baselines, read_run

WORSE = tuple(score - 0.25 * (i % 2) for i, score in enumerate(SCORES))


def pair(folder: Path) -> tuple[Path, Path]:
    """A run and its baseline, which is 0.25 worse on every other case."""
    run = evaluated(trained(folder / "method"))
    return run, evaluated(trained(folder / "baseline", method_enabled=False), WORSE)


def test_differences_are_paired_by_case_whatever_the_order(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    names = read_run(run).cases.names
    evaluated(baseline, WORSE[::-1], names[::-1], ["v1", "v0"] * 3)
    found = compare(read_run(run), read_run(baseline))
    assert found.differences == (0.0, 0.25) * 3 and found.better_worse_equal == (3, 0, 3)
    assert found.mean_sd == pytest.approx((0.125, statistics.stdev([0, 0.25] * 3)))
    assert found.figures[0].difference == pytest.approx(0.125) and found.figures[0].name == "mean_dice"
    assert [(unit.name, unit.cases) for unit in found.units] == [("v0", 3), ("v1", 3)]
    assert [unit.difference for unit in found.units] == pytest.approx([0.0, 0.25])


def test_lower_may_be_better(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    for folder in (run, baseline):
        content = json.loads((folder / "metrics.json").read_text())
        write_json(folder / "metrics.json", content | {"better": "lower"})
    assert compare(read_run(run), read_run(baseline)).better_worse_equal == (0, 3, 3)


def test_baseline_beside_the_run_is_found(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert [other.folder for other in find_baselines(read_run(run))] == [baseline]
    assert find_baselines(read_run(baseline)) == [], "a baseline has none"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("split.json", "label_budget", 8),
        ("split.json", "split_seed", 2),
        ("split.json", "source", "other.json"),
        ("split.json", "labeled", []),
        ("metrics.json", "list", "validation"),
        ("run.json", "keys", {"method_enabled": True}),
    ],
)
def test_run_of_other_data_is_no_baseline(tmp_path: Path, file: str, key: str, value: object) -> None:
    run, baseline = pair(tmp_path)
    write_json(baseline / file, json.loads((baseline / file).read_text()) | {key: value})
    assert find_baselines(read_run(run)) == []


def test_run_of_other_cases_is_no_baseline(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    evaluated(baseline, WORSE[:5])
    assert find_baselines(read_run(run)) == []


def test_of_several_the_most_alike_and_then_the_newest_comes_first(tmp_path: Path) -> None:
    run, _ = pair(tmp_path)
    evaluated(trained(tmp_path / "a_longer", method_enabled=False, max_epochs=9), WORSE)
    newer = evaluated(trained(tmp_path / "a_newer", method_enabled=False), WORSE)
    record = json.loads((newer / "run.json").read_text())
    write_json(newer / "run.json", record | {"started": "2026-02-01T00:00:00+00:00"})
    found = [other.folder.name for other in find_baselines(read_run(run))]
    assert found == ["a_newer", "baseline", "a_longer"]


def test_damaged_folder_beside_it_is_passed_over_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, baseline = pair(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert [other.folder for other in find_baselines(read_run(run))] == [baseline]
    assert "broken was not looked at" in caplog.text


def test_keys_that_differ_are_named_places_and_machinery_are_not(tmp_path: Path) -> None:
    run = read_run(evaluated(trained(tmp_path / "a", dataset_dir="/here", seed=1)))
    other = read_run(evaluated(trained(tmp_path / "b", dataset_dir="/there", method_enabled=False)))
    assert compare(run, other).differing == {"seed": (1, 2), "labeled_augmentation": ("weak", "paper")}


def test_named_baseline_may_share_some_cases_only(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    evaluated(baseline, (0.25, 0.25), ["v0/f0.png", "other.png"], ["v0", "v9"])
    found = compare(read_run(run), read_run(baseline))
    assert (found.cases, found.differences, found.alone) == (("v0/f0.png",), (0.25,), 6)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run, baseline = pair(tmp_path)
    evaluated(baseline, (0.5,), ["other.png"], ["v9"])
    with pytest.raises(ConfigError, match="0 cases in common"):
        compare(read_run(run), read_run(baseline))
    evaluated(baseline, key_metric="mae")
    with pytest.raises(ConfigError, match=r"is no baseline of .*: mean_dice on 6 cases of the test list, mae on"):
        compare(read_run(run), read_run(baseline))
    with pytest.raises(ConfigError, match="holds no figures to compare"):
        compare(read_run(run), read_run(trained(tmp_path / "c")))
