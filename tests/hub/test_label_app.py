# SPDX-License-Identifier: Apache-2.0
"""A bundle in a MONAI Label app: profiles merged into its two configs, weights at the place that the server reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tools.label_app import label_app

from fewlabel.errors import ConfigError
from fewlabel.hub import add_to_label_app


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A small bundle with a profile that a training has used, and an empty app."""
    bundle, app = tmp_path / "tool_segmentation", tmp_path / "monaibundle"
    common = {"bundle_root": ".", "width": 64, "output_dir": "$@bundle_root + '/output'"}
    train = common | {"ckpt_dir": "$@output_dir + '/models'", "optimizer": {"lr": 1.0, "eps": 0.5}}
    train["displayable_configs"] = {"unlabeled_dir": ""}
    slim = {"width": 8, "output_dir": "$@bundle_root + '/output/slim'", "optimizer#lr": 0.1}
    for name, content in {"train": train, "inference": common, "slim": slim}.items():
        write(bundle / "configs" / f"{name}.json", content)
    for name in ("output/slim/models/model.pt", "output/slim/models/last.pt", "models/model.pt"):
        file = bundle / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    app.mkdir()
    (app / "main.py").touch()
    return bundle, app


def write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "configs" / f"{name}.json").read_text()))


def test_profile_is_merged_and_its_model_served(places: tuple[Path, Path]) -> None:
    bundle, app = places
    target = add_to_label_app(bundle, app, ["slim"])
    assert target == app / "model" / bundle.name
    train, inference = read(target, "train"), read(target, "inference")
    assert train["width"] == inference["width"] == 8
    assert train["optimizer"] == {"lr": 0.1, "eps": 0.5} and "optimizer" not in inference
    assert train["output_dir"] == read(bundle, "train")["output_dir"], "the server reads models/model.pt"
    assert [file.name for file in (target / "models").iterdir()] == ["model.pt"]
    assert (target / "models" / "model.pt").read_text() == "output/slim/models/model.pt"
    assert not (target / "output").exists()


def test_given_model_and_studies(places: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, app = places
    target = add_to_label_app(bundle, app, model=bundle / "models" / "model.pt", studies=tmp_path / "studies")
    assert (target / "models" / "model.pt").read_text() == "models/model.pt"
    assert read(target, "train")["displayable_configs"] == {"unlabeled_dir": str(tmp_path / "studies")}
    assert read(bundle, "train")["displayable_configs"] == {"unlabeled_dir": ""}


def test_command_says_how_to_start(places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    bundle, app = places
    label_app(str(bundle), str(app), "slim")
    printed = capsys.readouterr().out
    assert "with its model" in printed and f"--conf models {bundle.name} " in printed and "127.0.0.1" in printed


def test_mistakes_change_nothing(places: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, app = places
    for keys, message in (
        ({"app": tmp_path}, "is no app of MONAI Label"),
        ({"profiles": ["fat"]}, "fat.json' does not exist"),
        ({"model": tmp_path / "none.pt"}, "none.pt' does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            add_to_label_app(**{"bundle": bundle, "app": app} | keys)
    assert not (app / "model").exists()
    add_to_label_app(bundle, app)
    with pytest.raises(ConfigError, match="may hold a model that was fine-tuned"):
        add_to_label_app(bundle, app)
