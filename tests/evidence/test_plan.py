# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evidence.conftest import PLAN
from tests.guards._tree import ROOT

from fewlabel.errors import ConfigError
from fewlabel.evidence import Plan, Run, read_plan


def test_runs_go_replicate_by_replicate(plan: Plan) -> None:
    runs = list(plan.runs())
    assert runs[:3] == [Run("supervised", 4, "A", 0), Run("method", 4, "A", 0), Run("supervised", 8, "A", 0)]
    assert len(runs) == len(set(runs)) == 2 * 2 * (2 * 3 + 1)
    assert [run.draw for run in runs] == sorted(run.draw for run in runs)


def test_optional_variants_run_only_when_named(plan: Plan) -> None:
    assert "pool" not in {run.variant for run in plan.runs()}
    assert {run.label_budget for run in plan.runs(["pool"])} == {8}


def test_without_folds_the_list_s_own_validation_is_scored(bundle: Path) -> None:
    plan = read_plan(bundle, folds=[])
    run = next(plan.runs())
    assert run.fold == "" and "hold_out" not in plan.settings(run)
    assert run.folder == "supervised-4-0"


def test_a_variant_s_keys_win_over_given_ones_and_those_over_the_plan_s(plan: Plan) -> None:
    given = {"val_interval": 5, "datalist": "mine.json", "seed": 9}
    keys = plan.settings(Run("pool", 8, "A", 1), given)
    assert keys == {
        "val_interval": 5,
        "datalist": "other.json",
        "hold_out": "A",
        "label_budget": 8,
        "split_seed": 1,
        "seed": 1,
    }
    assert plan.configs(Run("method", 8, "A", 1)) == ["train", "light", "twist"]


def test_folder_names_are_safe() -> None:
    assert Run("mms", 8, "../a b", 0).folder == "mms-8-.._a_b-0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("budget", [4], "key 'budget' is unknown"),
        ("claims", {"it helps": ["method", "metod"]}, "claims: 'metod' is none of the variants"),
        ("baseline", "nothing", "baseline 'nothing' is none of the variants"),
        ("profile", ["train", "absent"], "names configs/absent.json, which does not exist"),
        ("variants::method::overlay", ["twist"], "variant method: key 'overlay' is unknown"),
        ("variants::method::overlays", ["absent"], "variant method names configs/absent.json"),
    ],
)
def test_a_wrong_plan_is_refused(bundle: Path, path: str, value: Any, message: str) -> None:
    content = json.loads(json.dumps(PLAN))
    *parents, leaf = path.split("::")
    inside = content
    for parent in parents:
        inside = inside[parent]
    inside[leaf] = value
    (bundle / "configs" / "experiments.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"experiments\.json") as refusal:
        read_plan(bundle)
    assert message in refusal.value.message


def test_an_unknown_variant_is_refused(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"variant metod is unknown: .*supervised, method, ablation, pool"):
        list(plan.runs(["metod"]))


def test_a_bundle_without_a_plan_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a sweep needs a plan"):
        read_plan(tmp_path)


def test_leave_one_out_takes_every_group_with_labels(tmp_path: Path, bundle: Path) -> None:
    (bundle / "configs" / "train.json").write_text(json.dumps({"group_key": "video", "splits": {}}))
    items = [{"image": f"{i}.png", "label": f"{i}_m.png", "video": f"V{10 - i}"} for i in range(3)]
    lists = {"training": [*items, {"image": "u.png", "video": "unlabeled"}], "validation": []}
    (tmp_path / "datalist.json").write_text(json.dumps(lists))
    assert read_plan(bundle, tmp_path, folds="leave_one_out").folds == ("V8", "V9", "V10")
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items[:1], "validation": []}))
    with pytest.raises(ConfigError, match="has 1 values of 'video', but two are needed"):
        read_plan(bundle, tmp_path, folds="leave_one_out")


@pytest.mark.parametrize("path", sorted(ROOT.glob("bundles/*/configs/experiments.json")), ids=lambda p: p.parts[-3])
def test_the_plan_of_every_bundle_is_whole(path: Path) -> None:
    plan = read_plan(path.parent.parent)
    is_supervised = plan.variants[plan.baseline].keys.get("method_enabled") is False
    assert is_supervised or plan.variants[plan.baseline].budgets == (0,), "without labels the baseline has none either"
    assert len(plan.budgets) >= 2 and len(plan.draws) >= 3, "a table needs a spread"
