# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's use of the MMS bundle, replayed without its package: transforms one by one, fine-tuning from outside.

Its bundle tasks open ``train.json`` or ``inference.json`` alone, replace some keys, and serve the folder of the bundle.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import SaveImaged
from PIL import Image
from tests.bundles.conftest import EASY, easy_dataset, listing
from tests.bundles.tiny import BUNDLE, TINY, run
from torch import Tensor


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bundle in a folder of its own, its default profile made tiny, as an app of MONAI Label holds it."""
    target = tmp_path / "apps" / BUNDLE.name
    shutil.copytree(BUNDLE, target, ignore=shutil.ignore_patterns("models", "output"))
    for name in ("train", "inference"):
        file = target / "configs" / f"{name}.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: TINY.get(key, value) for key, value in content.items()}))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path / "cache"))
    yield target
    assert not listing(tmp_path / "cwd"), "something was written where the server was started"
    assert not (tmp_path / "cache" / "phantoms").exists(), "phantoms have no part in anybody's own frames"


def fine_tune(served: Path, data: Path, val_split: float = 0.2, **request: Any) -> None:
    """Do what its train task does for a request: pairs from its datastore, a word for the device, its own loader.

    A ``val_split`` of 0 gives an empty list to validate on, -1 leaves the bundle's.
    """
    parser = ConfigParser()
    parser.read_config(served / "configs" / "train.json")
    handlers = parser.get("train#handlers", [])
    if (served / "models" / "model.pt").is_file():
        loader = {"_target_": "CheckpointLoader", "load_path": str(served / "models" / "model.pt"), "strict": False}
        handlers.insert(0, loader | {"load_dict": {"model": "$@network"}})
    lists = json.loads((data / "datalist.json").read_text())
    pairs = {
        name: [{"image": str(data / i["image"]), "label": str(data / i["label"])} for i in lists[name]]
        for name in ("training", "validation")
    }
    overrides: dict[str, Any] = {
        "bundle_root": str(served),
        "train#trainer#max_epochs": request.pop("max_epochs", 2),
        "train#dataset#data": pairs["training"],
        "device": "cpu",
        "train#handlers": handlers,
        "displayable_configs": {"unlabeled_dir": request.pop("unlabeled_dir", "")},
    }
    if val_split >= 0:
        overrides["validate#dataset#data"] = pairs["validation"] if val_split else []
    configs = served / "configs"
    monai.bundle.run(
        run_id=request.pop("run_id", "run"),
        init_id=None,
        final_id=None,
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "train.json"),
        logging_file=False,
        **overrides | request,
    )


def history(served: Path) -> list[dict[str, str]]:
    with (served / "output" / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def model(folder: Path) -> dict[str, Tensor]:
    return dict(torch.load(folder / "models" / "model.pt", weights_only=True))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose training labels say the opposite of their validation labels."""
    return easy_dataset(tmp_path_factory.mktemp("wrong"), inverted=True, training=6, validation=2)


def give(skilled: Path, served: Path) -> dict[str, Tensor]:
    """Put a good model into the served bundle."""
    (served / "models").mkdir()
    shutil.copy(skilled / "models" / "model.pt", served / "models")
    return model(served)


def test_requests_train_anew_each_time(served: Path, frames: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A finished state of the first would end the second before its first step."""
    caplog.set_level(logging.WARNING, logger="fewlabel")
    for _ in range(2):
        fine_tune(served, frames)
        assert [row["epoch"] for row in history(served)] == ["1", "2"]
    assert listing(served / "models") == {"model.pt", "model.safetensors"}
    assert "labeled ones serve without their labels" in caplog.text


def test_request_of_other_data_is_never_refused(served: Path, frames: Path, wrong: Path) -> None:
    fine_tune(served, frames, max_epochs=1)
    fine_tune(served, wrong, max_epochs=1, learning_rate=0.01)


def test_empty_run_id_of_the_panel_trains(served: Path, frames: Path) -> None:
    """Clients send the field as it stands there, and MONAI takes an empty name for the whole config."""
    fine_tune(served, frames, max_epochs=1, run_id="")
    assert len(history(served)) == 1


def test_unlabeled_folder_of_the_request_is_used(served: Path, frames: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="fewlabel")
    fine_tune(served, frames, max_epochs=1, unlabeled_dir=str(frames / "images"))
    assert "serve without their labels" not in caplog.text
    assert float(history(served)[0]["similarity"]) > 0


def test_worse_fine_tuning_does_not_replace_the_model(served: Path, skilled: Path, wrong: Path) -> None:
    before = give(skilled, served)
    fine_tune(served, wrong, **EASY | {"learning_rate": 0.02, "max_epochs": 2})
    assert same(model(served), before)
    assert max(float(row["mean_dice"]) for row in history(served)) < 0.9


def test_better_fine_tuning_replaces_the_model(served: Path, frames: Path, trained: Path) -> None:
    (served / "models").mkdir()
    shutil.copy(trained / "models" / "model.pt", served / "models")
    before = model(served)
    keys = EASY | {"learning_rate": 0.02, "max_epochs": 4}
    fine_tune(served, frames, **keys)
    assert not same(model(served), before)
    run(frames, served / "check", ("train", "light", "evaluate"), "evaluating", ckpt_dir=str(served / "models"))
    assert json.loads((served / "check" / "metrics.json").read_text())["metrics"]["mean_dice"] > 0.4


@pytest.mark.parametrize("val_split", [0.0, -1.0])
@pytest.mark.parametrize("present", [False, True])
def test_request_without_validation_trains(
    served: Path, frames: Path, skilled: Path, present: bool, val_split: float
) -> None:
    """With nothing to judge by, as with one labeled image, the newest weights are taken."""
    before = give(skilled, served) if present else None
    fine_tune(served, frames, val_split=val_split, max_epochs=1)
    assert len(history(served)) == 1
    assert before is None or not same(model(served), before)


def test_transforms_one_by_one_give_a_mask_of_the_picture(served: Path, skilled: Path, frames: Path) -> None:
    """Its infer task: no workflow, no evaluator, every SaveImaged dropped, a restored 2-D mask at the end."""
    give(skilled, served)
    parser = ConfigParser()
    parser.read_config(served / "configs" / "inference.json")
    parser.config.update({"bundle_root": str(served), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(model(served), strict=False)
    file = next(iter(sorted((frames / "images").iterdir())))
    data: Any = {"image": str(file), "image_path": str(file)}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        data = transform(data)
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    for transform in parser.get_parsed_content("postprocessing").transforms:
        data = data if isinstance(transform, SaveImaged) else transform(data)
    mask, truth = np.asarray(data["pred"]), np.asarray(Image.open(frames / "labels" / file.name))
    assert mask.dtype == np.uint8 and mask.T.shape == truth.shape and set(np.unique(mask)) <= {0, 1}
    assert (truth == mask.T).mean() > 0.9
    assert not (served / "output").exists()


def test_labels_are_the_values_of_the_mask() -> None:
    """It takes the labels from ``channel_def`` of the first output, in small letters, without the background."""
    formats = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["network_data_format"]

    def labels(entries: dict[str, Any]) -> dict[str, int]:
        names = next(iter(entries.values()))["channel_def"]
        return {name.lower(): int(value) for value, name in names.items() if name.lower() != "background"}

    assert labels(formats["outputs"]) == labels(formats["post_processed_outputs"]) == {"tool": 1}
    assert next(iter(formats["inputs"])) == "image" and next(iter(formats["outputs"])) == "pred"


def test_dropout_reaches_the_network(served: Path) -> None:
    """Epistemic scoring sets ``network_def["dropout"]``."""
    plain, dropping = ConfigParser(), ConfigParser()
    for parser in (plain, dropping):
        parser.read_config(served / "configs" / "inference.json")
    dropping["network_def"]["dropout"] = 0.2
    network = dropping.get_parsed_content("network_def").eval()
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout2d)} == {0.2}
    assert network.state_dict().keys() == plain.get_parsed_content("network_def").state_dict().keys()
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))
