# SPDX-License-Identifier: Apache-2.0
"""Every config of every bundle keeps the contract: what MONAI would find one mistake a run is found here at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.guards._lint import HEAD, head_problems, load, overlay_problems, workflow_problems
from tests.guards._tree import ROOT, refuse, shown

from fewlabel.bundle.keys import CONTRACT_KEYS

BUNDLES = sorted(path.parent for path in ROOT.glob("bundles/*/configs"))
FILES = [file for bundle in BUNDLES for file in sorted(bundle.glob("configs/*.json"))]
COMPLETE, DATA = ("train.json", "inference.json"), ("metadata.json", "experiments.json")
TOP_LEVEL_ONLY = ("light.json",)
MULTI_GPU_LINES = 40


def problems_of(file: Path) -> list[str]:
    """Return what is wrong with one config file, overlays judged on what they lie over."""
    content, problems = load(file)
    if problems or file.name in DATA:
        return problems
    train, inference = (file.with_name(name) for name in COMPLETE)
    meta = file.with_name("metadata.json")
    if file.name in COMPLETE:
        return head_problems(content, complete=file.name == "train.json") + workflow_problems([file], meta)
    bases = {base.name: load(base)[0] for base in (train, inference) if base.is_file()}
    problems += overlay_problems(content, bases, nested=file.name not in TOP_LEVEL_ONLY)
    if problems:
        return problems
    for base in (train, inference) if file.name in TOP_LEVEL_ONLY else (train,):
        old = set(workflow_problems([base], meta))
        problems += [text for text in workflow_problems([base, file], meta) if text not in old]
    return list(dict.fromkeys(problems)) + multi_gpu_problems(file, content)


def multi_gpu_problems(file: Path, content: dict[str, Any]) -> list[str]:
    """Return what an overlay for several processes must not do."""
    if file.name != "multi_gpu_train.json":
        return []
    lines = len(file.read_text(encoding="utf-8").splitlines())
    problems = [f"{lines} lines, cap {MULTI_GPU_LINES}"] if lines > MULTI_GPU_LINES else []
    if "device" not in content:
        problems.append("key 'device' is missing: MONAI Label sends every rank the same one")
    if "train::handlers" in content:
        problems.append("key 'train::handlers': MONAI Label keeps its checkpoint loader in train.json's list")
    return problems


def test_there_are_bundles_with_the_files_that_monai_opens() -> None:
    assert BUNDLES
    names = ("train.json", "inference.json", "evaluate.json", "metadata.json", "multi_gpu_train.json", "light.json")
    missing = [
        f"{shown(bundle)}/configs/{name}"
        for bundle in BUNDLES
        for name in names
        if not (bundle / "configs" / name).is_file()
    ]
    refuse(missing, "these files are missing")


def test_the_checks_of_start_know_the_same_keys() -> None:
    assert set(HEAD) == CONTRACT_KEYS


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.parent.name}/{file.name}")
def test_config(file: Path) -> None:
    refuse(problems_of(file), shown(file))


TRAIN: dict[str, Any] = {
    "imports": ["$import os", "$import fewlabel"],
    **dict.fromkeys(HEAD, 1),
    "device": "$fewlabel.bundle.auto_device()",
    "member": "mean",
    "files": {"_target_": "fewlabel.files.move_aside", "folder": "@output_dir", "names": "$('a', @member)"},
    "read": [{"_target_": "LoadImaged", "_desc_": "any file", "keys": ["image"], "image_only": True}],
    "later": {"_target_": "fewlabel.files.move_aside", "_mode_": "callable", "folder": "@output_dir"},
    "train": {"optimizer": {"_target_": "torch.optim.Adam", "params": "$[p for p in @files if p]", "lr": 0.1}},
    "initialize": ["$fewlabel.bundle.start()"],
    "training": ["$@later(names=('a',))", "$os.getcwd() + torch.__version__"],
    "run": "%training",
}


def plant(folder: Path, overlay: dict[str, Any] | str | None = None, name: str = "other.json", **changes: Any) -> Path:
    """Write train.json with ``changes`` and, when given, an overlay; return the file that was planted last."""
    files = {"train.json": TRAIN | changes, "inference.json": TRAIN} | ({} if overlay is None else {name: overlay})
    for file, content in files.items():
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return folder / list(files)[-1 if overlay is not None else 0]


def test_sound_configs_have_no_problems(tmp_path: Path) -> None:
    assert problems_of(plant(tmp_path)) == []
    overlay = {
        "member": "@threshold",
        "threshold": 1,
        "train::optimizer::betas": [0.9, 0.99],
        "+imports": ["$import math"],
    }
    assert problems_of(plant(tmp_path, overlay | {"testing": ["$math.floor(@threshold)"]})) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"member": "a#b"}, "'#' in 'a#b'"),
        ({"files": "@train#optimizer"}, "'#' in '@train#optimizer'"),
        ({"files": "@optput_dir"}, "files: '@optput_dir' refers to nothing: did you mean 'output_dir'?"),
        ({"files": "$@train::optimiser.x"}, "'@train::optimiser' refers to nothing: did you mean 'train::optimizer'?"),
        ({"files": "@output_dir + '/x'"}, "is text to MONAI: write '$@output_dir + '/x''"),
        ({"files": "$@output_dir +"}, "is no Python expression: invalid syntax"),
        (
            {"files": "$fewlabel.bundle.auto_devise()"},
            "fewlabel.bundle has no 'auto_devise': did you mean 'auto_device'?",
        ),
        ({"files": "$fewlabel.bundles.start()"}, "fewlabel has no 'bundles': did you mean 'bundle'?"),
        ({"files": "$fewlabel.bundle.auto_device(3)"}, "fewlabel.bundle.auto_device cannot be called so: too many"),
        ({"files": "$math.pi"}, "unknown name 'math'; the config imports fewlabel, monai"),
        ({"imports": ["$import fewlabel.bundle"]}, "does not bind 'fewlabel'"),
        ({"imports": ["$import os", "$import fewlable"]}, "there is no module 'fewlable'"),
        ({"files": {"_target_": "fewlabel.files.move_asid"}}, "does not exist: did you mean 'move_aside'?"),
        ({"files": {"_target_": "fewlabel.files"}}, "is a module, not a class or function"),
        ({"files": {"_target_": "LoadImagedd"}}, "does not exist: did you mean 'LoadImaged'?"),
        ({"files": {"_target_": "LoadImaged", "keys": 1, "_mode_": "call"}}, "_mode_ 'call'"),
        (
            {"files": {"_target_": "AsDiscreted", "keys": 1, "thresholds": 1}},
            "AsDiscreted takes no 'thresholds': did you mean 'threshold'?",
        ),
        ({"files": {"_target_": "LoadImaged", "image_only": True}}, "missing a required argument: 'keys'"),
        (
            {"files": {"_target_": "fewlabel.files.move_aside", "folders": 1}},
            "no argument 'folders': did you mean 'folder'?",
        ),
        ({"files": {"_target_": "fewlabel.files.move_aside", "folder": 1}}, "missing a required argument: 'names'"),
        ({"files": {"_target_": "LoadImaged", "keys": 1, "_disable_": 1}}, "LoadImaged takes no '_disable_'"),
        ({"run": "%trainings"}, "MONAI cannot merge train.json"),
    ],
)
def test_planted_mistake_is_found(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    found = problems_of(plant(tmp_path, **changes))
    assert len(found) >= 1 and any(message in text for text in found), found


@pytest.mark.parametrize(
    ("overlay", "name", "message"),
    [
        (
            {"members": 1},
            "other.json",
            "key 'members' is in neither train.json nor inference.json, and nothing reads it: did you mean 'member'?",
        ),
        (
            {"train::optimiser::lr": 1},
            "other.json",
            "train.json has no 'train::optimiser': did you mean 'train::optimizer'?",
        ),
        ({"train::optimizer::lr": 1}, "light.json", "top-level keys only"),
        ({"train::optimizer::rate": 1}, "other.json", "train::optimizer: torch.optim.Adam has no argument 'rate'"),
        ({"+member": [1]}, "other.json", "extends a list or dict, but 'member' of train.json is a str"),
        ({"+initialise": [1]}, "other.json", "'initialise' of train.json is missing: did you mean 'initialize'?"),
        ({"member": "@nothing"}, "light.json", "'@nothing' refers to nothing"),
        ('{"member": 1, "member": 2}', "other.json", "key 'member' stands twice in one object"),
        ('{"member": 1,\n "amp"}', "other.json", "line 2: Expecting ':' delimiter"),
        ({"device": 1, "train::handlers": []}, "multi_gpu_train.json", "MONAI Label keeps its checkpoint loader"),
        ({"member": 1}, "multi_gpu_train.json", "key 'device' is missing"),
        ({"device": 1, "class_names": list(range(40))}, "multi_gpu_train.json", "lines, cap 40"),
    ],
)
def test_planted_mistake_in_an_overlay_is_found(tmp_path: Path, overlay: Any, name: str, message: str) -> None:
    found = problems_of(plant(tmp_path, overlay, name))
    assert len(found) == 1 and message in found[0], found


def test_keys_of_the_contract_come_first_and_in_order() -> None:
    keys = {"imports": [], **dict.fromkeys(HEAD, 1), "own": 1}
    assert head_problems(keys, complete=True) == []
    without = {key: value for key, value in keys.items() if key not in ("hold_out", "seed")}
    assert head_problems(without, complete=True) == ["key 'seed' of the contract is missing"]
    assert head_problems(without, complete=False) == []
    swapped = {"imports": [], "datalist": 1, "dataset_dir": 1}
    assert head_problems(swapped, complete=False) == ["key 'datalist' stands where the contract has 'dataset_dir'"]
    between = {"imports": [], "dataset_dir": 1, "own": 1, "seed": 1}
    assert head_problems(between, complete=False) == ["key 'own' stands among the contract's keys: move it below them"]
    assert head_problems({"dataset_dir": 1, "imports": []}, complete=False)[0] == "the first key is not 'imports'"
