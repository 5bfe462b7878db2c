# SPDX-License-Identifier: Apache-2.0
"""The real MONAI Label server with the MMS bundle on drawn frames: what a lab does, once, in its order."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from tests.monailabel import server as lab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed here: make test-monailabel"
    ),
]

LABELED = 10


class Lab(NamedTuple):
    """A running server and the folders that it works on."""

    server: lab.Server
    bundle: Path
    studies: Path
    unlabeled: list[Path]
    trained: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a short light training on the phantoms; read only."""
    folder = tmp_path_factory.mktemp("trained")
    few = ("--method_enabled", "false", "--learning_rate", "0.01", "--max_epochs", "4", "--epoch_length", "15")
    lab.bundle_run("training", "train", folder, *few)
    return folder


@pytest.fixture(scope="module")
def running(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The server, stopped at the end whatever happened."""
    root = tmp_path_factory.mktemp("lab")
    unlabeled = lab.make_studies(root / "studies", LABELED)
    bundle = lab.make_app(root, trained / "models" / "model.pt", epoch_length=4)
    with lab.Server(root / "monaibundle", root / "studies", bundle.name, root / "cwd") as server:
        yield Lab(server, bundle, root / "studies", unlabeled, trained)
    assert server.process.poll() is not None
    assert sorted(file.name for file in (root / "cwd").iterdir()) == ["server.log"]


@pytest.fixture(autouse=True)
def log_of_the_test(running: Lab) -> Iterator[None]:
    """pytest shows what is printed here with a test that fails."""
    before = len(running.server.log())
    yield
    sys.stdout.write(running.server.log()[before:])


def mask_of(answer: bytes) -> np.ndarray[Any, Any]:
    picture = Image.open(io.BytesIO(answer))
    assert picture.format == "PNG"
    return np.asarray(picture)


def history(running: Lab) -> list[dict[str, str]]:
    with (running.bundle / "output" / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_info(running: Lab) -> None:
    info = running.server.info()
    model = info["models"][running.bundle.name]
    assert model["type"] == "segmentation" and model["dimension"] == 2
    assert model["labels"] == {"tool": 1}, "the number of a label is its value in the mask"
    panel = info["trainers"][running.bundle.name]["config"]
    assert {"device", "max_epochs", "val_split", "pretrained", "model_filename", "unlabeled_dir"} <= panel.keys()
    assert panel["model_filename"] == ["model.pt"]
    assert info["datastore"]["total"] == LABELED + len(running.unlabeled) and info["datastore"]["completed"] == LABELED


def test_mask_is_that_of_the_command_line(running: Lab, tmp_path: Path) -> None:
    frame = running.unlabeled[0]
    (tmp_path / "frames").mkdir()
    Image.open(frame).save(tmp_path / "frames" / frame.name)
    (tmp_path / "models").symlink_to(running.trained / "models")
    lab.bundle_run("inference", "inference", tmp_path, "--dataset_dir", str(tmp_path / "frames"))
    (file,) = (tmp_path / "predictions").rglob("*_mask.png")

    answer = running.server.infer(frame.stem)
    mask, expected = mask_of(answer), np.asarray(Image.open(file))
    assert mask.dtype == np.uint8 and mask.shape == np.asarray(Image.open(frame)).shape[:2]
    assert set(np.unique(mask)) == {0, 1}
    assert (mask == expected).mean() > 0.999
    assert (mask[::-1] == expected).mean() < 0.99 and (mask[:, ::-1] == expected).mean() < 0.99
    assert running.server.infer(frame.stem) == answer


def test_training_and_the_same_again(running: Lab) -> None:
    before = (running.bundle / "models" / "model.pt").stat().st_mtime
    for _ in range(2):
        assert running.server.train(max_epochs=2, val_split=0.2, unlabeled_dir=str(running.studies)) == 200
        rows = history(running)
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert all(float(row["similarity"]) > 0 for row in rows)
        assert all(row["mean_dice"] for row in rows), "every epoch is scored against the model in use"
    assert "labeled ones serve without their labels" not in running.server.log()
    assert "the model in use scores" in running.server.log()
    assert (running.bundle / "models" / "model.pt").stat().st_mtime >= before


def test_worse_training_leaves_the_model(running: Lab) -> None:
    model = running.bundle / "models" / "model.pt"
    before, usual = model.read_bytes(), 0.003
    lab.change(running.bundle, learning_rate=1000.0)
    try:
        assert running.server.train(max_epochs=1, val_split=0.2, unlabeled_dir=str(running.studies)) == 200
    finally:
        lab.change(running.bundle, learning_rate=usual)
    assert float(history(running)[0]["mean_dice"]) < 0.5
    assert model.read_bytes() == before


def test_unlabeled_folder_is_read(running: Lab, tmp_path: Path) -> None:
    """A file in it that is no picture ends the request with the file's name; the server goes on."""
    (tmp_path / "no_picture.png").write_bytes(b"text")
    assert running.server.train(max_epochs=1, val_split=0.2, unlabeled_dir=str(tmp_path)) == 500
    assert "no_picture.png" in running.server.log()
    assert mask_of(running.server.infer(running.unlabeled[1].stem)).any()


def test_empty_fields_of_the_panel(running: Lab) -> None:
    """A client sends all fields of its panel; without images of its own the pool is made of the labeled ones."""
    assert running.server.train(max_epochs=1, val_split=0.2, run_id="", multi_gpu=True, tracking="None") == 200
    assert len(history(running)) == 1
    assert "labeled ones serve without their labels" in running.server.log()
