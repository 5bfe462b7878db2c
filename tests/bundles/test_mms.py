# SPDX-License-Identifier: Apache-2.0
"""The MMS bundle end to end on phantoms: what training and evaluation leave behind, and that weights come back."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.bundles.conftest import EASY, easy_dataset, listing
from tests.bundles.tiny import BUNDLE, EVALUATE, INFERENCE, NETWORK, dataset, run

from fewlabel.data import test_items as items_of_test_list
from fewlabel.errors import ConfigError

TERMS = ("supervised", "negatives", "similarity", "pixels")
RATE = json.loads((BUNDLE / "configs" / "light.json").read_text())["learning_rate"]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "models" / "model.pt", weights_only=True))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], only: str = "") -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a if key.endswith(only))


def without_examples(folder: Path) -> set[str]:
    """The files of an evaluation but for its pictures, which must be there."""
    files = listing(folder)
    examples = {name for name in files if name.startswith("examples/")}
    assert "examples/index.json" in examples and len(examples) % 3 == 1, "three pictures a case"
    return files - examples


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    run("", folder, EVALUATE, "evaluating", ckpt_dir=str(trained / "models"))
    return folder


def test_training_leaves_the_files_of_the_contract_and_no_others(trained: Path) -> None:
    events = {name for name in listing(trained) if name.startswith("tensorboard/events")}
    assert len(events) == 1
    assert listing(trained) - events == {
        *("run.json", "split.json", "history.csv", "report.html", "models/model.pt", "models/model.safetensors"),
        *("models/resume/last.pt", "models/resume/config.json"),
    }
    assert [f.name for f in (trained / "models").glob("*.pt")] == ["model.pt"], "MONAI Label offers all of these"


def test_record_of_the_run(trained: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["keys"] | {"max_epochs": 2, "device": "cpu", "learning_rate": RATE} == record["keys"]
    assert record["config"]["encoder_options"] == NETWORK["encoder_options"]
    assert torch.__version__.startswith(record["versions"]["torch"]) and record["bundle_version"] == "0.1.0"
    split = json.loads((trained / "split.json").read_text())
    assert split["source"].startswith("phantoms/endoscopy")
    assert (len(split["labeled"]), len(split["unlabeled"]), len(split["validation"])) == (8, 64, 12)
    assert all("label" in item for item in split["labeled"])
    assert not any("label" in item for item in split["unlabeled"])
    assert str(Path.home()) not in json.dumps(split["labeled"]), "paths are relative to the data set"


def test_history_has_every_term_and_the_validation(trained: Path) -> None:
    rows = table(trained / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(0.25 * float(row[term]) for term in TERMS), rel=1e-4)
    assert [row["mean_dice"] != "" for row in rows] == [False, True]
    assert [float(row["lr"]) for row in rows] == pytest.approx([RATE, RATE * 0.5**0.9])


def test_weights_are_plain_and_two_networks(trained: Path) -> None:
    model = weights(trained)
    assert same(model, load_file(trained / "models" / "model.safetensors"))
    first = {key for key in model if key.startswith("first.")}
    assert {key.replace("first.", "second.", 1) for key in first} == model.keys() - first
    assert not torch.equal(model["first.decoder.head.weight"], model["second.decoder.head.weight"])
    state = torch.load(trained / "models" / "resume" / "last.pt", weights_only=True)
    assert (state["epoch"], int(state["module"]["iteration"])) == (2, 4)
    assert same(model, {k.removeprefix("network."): v for k, v in state["module"].items() if k.startswith("network.")})


def test_evaluating_leaves_figures_whose_rows_average_to_them(evaluated: Path) -> None:
    assert without_examples(evaluated) == {"metrics.json", "metrics_per_case.csv", "report.html"}
    found = json.loads((evaluated / "metrics.json").read_text())
    rows = table(evaluated / "metrics_per_case.csv")
    assert (found["list"], found["cases"], len(rows)) == ("test", 16, 16)
    assert found["settings"] | {"member": "mean", "threshold": 0.5, "select_model": "last"} == found["settings"]
    metrics = found["metrics"]
    assert set(metrics) == {"mean_dice", "mean_iou", "global_dice", "mae_probability", "mae_mask"}
    for name in set(metrics) - {"global_dice"}:
        assert metrics[name] == pytest.approx(np.mean([float(row[name]) for row in rows]), abs=1e-5)
    tp, fp, fn = (sum(float(row[f"{kind}_px"]) for row in rows) for kind in KINDS)
    assert metrics["global_dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))


KINDS = ("true_positive", "false_positive", "false_negative")


def test_figures_are_those_of_the_masks_that_inference_writes(trained: Path, evaluated: Path, tmp_path: Path) -> None:
    """An oracle apart: Dice by NumPy from the pictures on disk, in the grid of the files."""
    run("", tmp_path, INFERENCE, "inference", ckpt_dir=str(trained / "models"), overlays=False)
    rows = {Path(row["case"]).stem: float(row["mean_dice"]) for row in table(evaluated / "metrics_per_case.csv")}
    items = items_of_test_list()
    assert listing(tmp_path) == {f"predictions/{Path(item['image']).stem}_mask.png" for item in items}
    for item in items:
        stem = Path(item["image"]).stem
        mask = np.asarray(Image.open(tmp_path / "predictions" / f"{stem}_mask.png")) > 0
        truth = np.asarray(Image.open(item["label"])) > 0
        assert rows[stem] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()), abs=1e-5)


@pytest.mark.parametrize("run_id", ["run", "training"])
def test_with_the_overlay_every_run_id_evaluates(trained: Path, tmp_path: Path, run_id: str, frames: Path) -> None:
    """Else `run training` with evaluate.json would choose weights on the test list."""
    run(frames, tmp_path, EVALUATE, run_id, ckpt_dir=str(trained / "models"))
    assert without_examples(tmp_path) == {"metrics.json", "metrics_per_case.csv", "report.html"}
    assert json.loads((tmp_path / "metrics.json").read_text())["cases"] == 3


def test_evaluating_without_a_test_list_says_so(trained: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", test=0)
    run(data, tmp_path / "out", EVALUATE, "evaluating", ckpt_dir=str(trained / "models"))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["list"] == "validation"


@pytest.fixture
def elsewhere(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder; return a folder of bundles, among them this one with its trained weights."""
    target = tmp_path / "bundles" / BUNDLE.name
    shutil.copytree(BUNDLE, target, ignore=shutil.ignore_patterns("models", "output"))
    shutil.copytree(trained / "models", target / "models")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("monai.bundle.workflows._apply_logging_file", lambda file: None)  # the log of pytest stays
    return target.parent


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_load_returns_the_trained_weights_from_any_folder(trained: Path, elsewhere: Path, kind: str) -> None:
    """Beside a run of another config in models/resume, and without touching random numbers or folders."""
    profile = {f"build#{key}": value for key, value in NETWORK.items()}
    torch.manual_seed(7)
    network = monai.bundle.load(
        BUNDLE.name, bundle_dir=elsewhere, workflow_type=kind, net_override=profile | {"dropout": 0.1}, device="cpu"
    )
    assert same(network.state_dict(), weights(trained))
    assert not listing(Path.cwd()) and not (elsewhere / BUNDLE.name / "output").exists()
    assert torch.initial_seed() == 7, "loading seeds nothing"


def test_training_starts_from_the_weights_of_init_checkpoint(trained: Path, frames: Path, tmp_path: Path) -> None:
    """Without learning the parameters stay what they were; running statistics follow the data."""
    file = trained / "models" / "model.safetensors"
    run(frames, tmp_path, init_checkpoint=str(file), learning_rate=1e-30, max_epochs=1)
    assert same(weights(trained), weights(tmp_path), only=".weight")
    assert not same(weights(trained), weights(tmp_path), only=".running_mean")


def test_init_checkpoint_of_another_network_is_refused(frames: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=r"init_checkpoint '.*other\.pt' does not fit the network"):
        run(frames, tmp_path / "out", init_checkpoint=str(tmp_path / "other.pt"))
    assert not listing(tmp_path / "out"), "a refused start writes nothing"


@pytest.mark.parametrize("select", ["best", "last"])
def test_select_model(skilled: Path, tmp_path: Path, select: str) -> None:
    """Labels that say the opposite make good weights worse from epoch to epoch; the history says how good they were."""
    data = easy_dataset(tmp_path / "data", inverted=True, training=6, validation=2, test=0)
    keys: dict[str, Any] = EASY | {"max_epochs": 4, "val_interval": 1, "learning_rate": 0.02, "method_enabled": False}
    run(data, tmp_path, init_checkpoint=str(skilled / "models" / "model.pt"), select_model=select, **keys)
    run(data, tmp_path / "scores", EVALUATE, "evaluating", ckpt_dir=str(tmp_path / "models"))
    scores = [float(row["mean_dice"]) for row in table(tmp_path / "history.csv")]
    assert max(scores) > scores[-1] + 0.1, f"the last epoch is as good as any: {scores}"
    found = json.loads((tmp_path / "scores" / "metrics.json").read_text())["metrics"]["mean_dice"]
    assert found == pytest.approx(max(scores) if select == "best" else scores[-1], abs=1e-4)


def test_training_learns(frames: Path, tmp_path: Path) -> None:
    run(frames, tmp_path, learning_rate=0.01, val_interval=6, **EASY)
    rows = table(tmp_path / "history.csv")
    assert float(rows[-1]["mean_dice"]) > 0.5
    for term in TERMS:
        assert float(rows[-1][term]) < float(rows[0][term])


@pytest.mark.slow
def test_real_frames(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The same configs on real endoscopy by dataset_dir and datalist alone."""
    keys: dict[str, Any] = {"datalist": "dataset.json", "label_budget": 8, "hold_out": "OP1"}
    data = real_data("mms_endovis15")
    run(data, tmp_path, max_epochs=2, cache_rate=0, **keys)
    run(data, tmp_path, EVALUATE, "evaluating", **keys)
    split = json.loads((tmp_path / "split.json").read_text())
    assert len(split["labeled"]) == 8 and len(split["unlabeled"]) > 8
    assert "OP1" not in {item["video"] for name in ("labeled", "unlabeled") for item in split[name]}
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["cases"] > 0 and 0 <= found["metrics"]["mean_dice"] <= 1
