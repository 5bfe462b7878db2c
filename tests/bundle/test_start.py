# SPDX-License-Identifier: Apache-2.0
"""start(): words, unknown keys, versions, folders and foreign checkpoints, each refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from fewlabel.bundle.identity import differing_keys
from fewlabel.bundle.start import check_versions
from fewlabel.errors import ConfigError

TRAIN: dict[str, Any] = {
    "imports": ["$import fewlabel"],
    "bundle_root": ".",
    "dataset_dir": "",
    "output_dir": "$@bundle_root + '/output'",
    "ckpt_dir": "$@bundle_root + '/models'",
    "device": "cpu",
    "seed": 0,
    "max_epochs": 3,
    "resume": "auto",
    "method_enabled": True,
    "learning_rate": 0.1,
    "seen": "$'on' if @method_enabled else 'off'",
    "train": {"dataset": {"_target_": "Dataset", "data": "$@splits"}, "trainer": {"lr": "@learning_rate"}},
    "initialize": ["$fewlabel.bundle.start()"],
    "training": ["$@seen"],
    "run": "%training",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose training does nothing."""
    configs = tmp_path / "toy" / "configs"
    configs.mkdir(parents=True)
    (configs / "train.json").write_text(json.dumps(TRAIN))
    (configs / "metadata.json").write_text(json.dumps({"version": "0.1.0", "monai_version": "1.6.1"}))
    (configs / "inference.json").write_text(json.dumps({"threshold": 0.5}))
    return tmp_path / "toy"


def workflow(bundle: Path, *overlays: dict[str, Any], run_id: str = "run", **override: Any) -> ConfigWorkflow:
    files = [str(bundle / "configs" / "train.json")]
    for i, overlay in enumerate(overlays):
        files.append(str(bundle / "configs" / f"overlay{i}.json"))
        Path(files[-1]).write_text(json.dumps(overlay))
    override = {"bundle_root": str(bundle), **override}
    return ConfigWorkflow(config_file=files, run_id=run_id, logging_file=False, workflow_type="train", **override)


def started(*args: Any, **kwargs: Any) -> ConfigWorkflow:
    made = workflow(*args, **kwargs)
    made.initialize()
    return made


@pytest.mark.parametrize("word", [False, "false", "False", "FALSE"])
def test_false_is_false(bundle: Path, word: Any) -> None:
    """python-fire hands `--method_enabled false` over as a string, which is true."""
    assert started(bundle, method_enabled=word).run() == ["off"]


@pytest.mark.parametrize("word", ["null", "None"])
def test_null_is_none(bundle: Path, word: str) -> None:
    made = started(bundle, {"training": ["$repr(@dataset_dir)"]}, dataset_dir=word)
    assert made.run() == ["None"]


def test_misspelt_key_on_the_command_line(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'max_epoch': did you mean 'max_epochs'"):
        started(bundle, max_epoch=5)


def test_misspelt_key_in_an_overlay(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'learning_rte': did you mean 'learning_rate'"):
        started(bundle, {"learning_rte": 5})


@pytest.mark.parametrize("key", ["train::trainr", "train::datasets"])
def test_misspelt_key_of_a_section(bundle: Path, key: str) -> None:
    """MONAI accepts these in silence too."""
    with pytest.raises(ConfigError, match=f"unknown key '{key}': did you mean 'train::(trainer|dataset)'"):
        started(bundle, **{key: 1})


def test_sections_take_what_is_referenced_or_known_to_monai(bundle: Path) -> None:
    overlay = {"train::extra": 3, "train::handlers": [], "seen": "$@train::extra + @train#extra", "own": {"free": 1}}
    assert started(bundle, overlay | {"training": ["$@seen", "$@own"]}).run()[0] == 6


def test_misspelt_argument_of_a_component(bundle: Path) -> None:
    loss = {"_target_": "fewlabel.losses.StructureLoss", "_disabled_": True, "windw": 3}
    with pytest.raises(ConfigError, match="unknown key 'seen::0::loss::windw': did you mean 'seen::0::loss::window'"):
        started(bundle, {"seen": [{"loss": loss}]})
    started(bundle, {"seen": {"_target_": "torch.nn.Identity", "whatever": 3}})


def test_value_of_the_wrong_kind(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="max_epochs is 'many': give a whole number from 1 on"):
        started(bundle, max_epochs="many")
    with pytest.raises(ConfigError, match="method_enabled is 'no': give true or false"):
        started(bundle, method_enabled="no")


def test_keys_of_inference_and_of_new_references_are_known(bundle: Path) -> None:
    started(bundle, {"threshold": 0.4, "rank": 0, "train::trainer::lr": "$@rank * 0.1", "own_stage": ["$@seen"]})


def test_unknown_run_id(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="unknown run id 'trainning': did you mean 'training'"):
        started(bundle, run_id="trainning")


def test_wrong_bundle_root(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--bundle_root '.*toy'"):
        started(bundle, bundle_root=str(tmp_path))


@pytest.mark.parametrize("key", ["output_dir", "ckpt_dir"])
def test_folder_that_cannot_be_written(bundle: Path, key: str) -> None:
    (bundle / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=f"cannot write to {key} .* choose another --{key}"):
        started(bundle, **{key: str(bundle / "file" / "below")})


def _ran(bundle: Path, **override: Any) -> None:
    """Leave what a checkpoint handler would leave behind."""
    made = workflow(bundle, {"who": "$fewlabel.bundle.identity()", "training": ["$@who"]}, **override)
    made.initialize()
    (bundle / "models" / "resume").mkdir(parents=True, exist_ok=True)
    (bundle / "models" / "resume" / "config.json").write_text(json.dumps(made.run()[0]))


def test_checkpoint_of_another_config_names_the_keys(bundle: Path) -> None:
    _ran(bundle)
    with pytest.raises(ConfigError, match=r"differs in learning_rate, seed: .*--resume never"):
        started(bundle, {"who": "$fewlabel.bundle.identity()", "training": ["$@who"]}, learning_rate=0.2, seed=1)


def test_places_machines_and_duration_make_no_other_run(bundle: Path, tmp_path: Path) -> None:
    _ran(bundle)
    overlay = {"who": "$fewlabel.bundle.identity()", "training": ["$@who"]}
    started(bundle, overlay, max_epochs=9, device="cpu:0", output_dir=str(tmp_path / "elsewhere"))


def test_another_number_of_processes_is_another_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ran(bundle)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="differs in processes"):
        started(bundle, {"who": "$fewlabel.bundle.identity()", "training": ["$@who"]})


def test_never_does_not_compare(bundle: Path) -> None:
    _ran(bundle)
    started(bundle, learning_rate=0.2, resume="never")


def test_data_from_outside_do_not_compare(bundle: Path) -> None:
    """MONAI Label puts its own list in and must never be stopped by an earlier run."""
    _ran(bundle)
    started(bundle, learning_rate=0.2, **{"train::dataset::data": [{"image": "x.png"}]})


def test_versions_below_the_floor() -> None:
    with pytest.raises(ConfigError, match=r"monai .* is older than 99.0: pip install -U 'monai>=99.0'"):
        check_versions({"minimum_versions": {"monai": "99.0"}})
    with pytest.raises(ConfigError, match="is not installed: pip install"):
        check_versions({"minimum_versions": {"no_such_package": "1.0"}})
    check_versions({"minimum_versions": {"monai": "1.0"}, "monai_version": "1.5.2"})


def test_differing_keys() -> None:
    assert differing_keys({"a": 1, "b": None}, {"a": 2, "c": None}) == ["a", "b", "c"]
    assert differing_keys({"a": 1}, {"a": 1}) == []
    assert differing_keys({"a": 1}, {"a": 1, "stage_examples::count": 3}) == [], "of an earlier version"
