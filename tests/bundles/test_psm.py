# SPDX-License-Identifier: Apache-2.0
"""The PSM bundle end to end on tiles of a few disks: its stages, alone, together, again, in two processes."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundles.conftest import listing
from tests.bundles.nuclei import SIZE, dataset, fork, join, run, stage
from tests.bundles.tiny import EVALUATE, NUCLEI, TRAIN

STAGES = ("pretraining", "pseudo_labels", "point_training", "voronoi_labels")
IDS = ("pretraining", "pseudo_labeling", "point_training", "fitting")
TILES = [f"{i:05d}_t{i:02d}.png" for i in range(4)]
NETWORK = {"history.csv", "model.pt", "model.safetensors", "resume/last.pt", "resume/config.json", "stage.json"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("tiles") / "data")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of all stages; read only."""
    folder = tmp_path_factory.mktemp("trained")
    before = listing(NUCLEI)
    run(data, folder)
    assert listing(NUCLEI) == before, "a training with folders of its own wrote into the bundle"
    return folder


def weights(file: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(file, weights_only=True))


def same(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in listing(folder)}


def test_every_stage_leaves_its_files(trained: Path) -> None:
    assert listing(stage(trained, "pretraining")) == listing(stage(trained, "point_training")) == NETWORK
    for name, kinds in (("pseudo_labels", ("map", "mask")), ("voronoi_labels", ("points", "voronoi"))):
        files = {f"{kind}/{tile}" for kind in kinds for tile in TILES}
        assert listing(stage(trained, name)) == files | {"stage.json"}
    records = {"run.json", "split.json", "history.csv", "report.html", "models/model.pt", "models/model.safetensors"}
    assert records <= listing(trained)


def test_pictures_of_the_stages_mean_what_is_documented(trained: Path) -> None:
    found: dict[str, set[int]] = {}
    for name, kind in (("pseudo_labels", "mask"), ("voronoi_labels", "points"), ("voronoi_labels", "voronoi")):
        pictures = [np.asarray(Image.open(stage(trained, name) / kind / tile)) for tile in TILES]
        assert all(picture.shape == SIZE and picture.dtype == np.uint8 for picture in pictures)
        found[kind] = set(np.unique(pictures).tolist())
    assert found["mask"] == found["points"] == {0, 1} and {1, 255} <= found["voronoi"] <= {0, 1, 255}


def test_pseudo_masks_find_dark_disks(data: Path, trained: Path) -> None:
    for tile in TILES:
        mask = np.asarray(Image.open(stage(trained, "pseudo_labels") / "mask" / tile)) > 0
        truth = np.asarray(Image.open(data / "labels" / tile.partition("_")[2])) > 0
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7


def test_a_second_call_repeats_nothing(data: Path, trained: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    before = times(out)
    run(data, out)
    after = times(out)
    kept = {name for name in before if name.startswith(("stages/", "models/model"))}
    assert len(kept) > 20 and {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name for name in after if name.startswith("stages/")} <= kept


def test_another_beta_reuses_pretraining_and_makes_the_rest_again(data: Path, trained: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained / "stages", tmp_path / "stages")).parent
    before = times(out)
    run(data, out, beta=0.5)
    after = times(out)
    assert {name: after[name] for name in before} == before, "nothing old is touched"
    assert [len(list(out.glob(f"stages/{name}-*"))) for name in STAGES] == [1, 2, 2, 2]


def test_run_ids_in_their_order_train_what_training_trains(data: Path, trained: Path, tmp_path: Path) -> None:
    """The networks of a stage must not depend on which stages ran before in the same process."""
    for number, run_id in enumerate(IDS):
        run(data, tmp_path, run_id=run_id)
        done = sorted(path.parent.name for path in tmp_path.glob("stages/*/stage.json"))
        assert len(done) == (1, 2, 4, 4)[number]
    assert (tmp_path / "stages").is_dir() and listing(tmp_path / "stages") == listing(trained / "stages")
    for name in ("pretraining", "point_training"):
        assert same(stage(trained, name) / "model.pt", stage(tmp_path, name) / "model.pt")
    assert same(trained / "models" / "model.pt", tmp_path / "models" / "model.pt")
    assert not same(trained / "models" / "model.pt", stage(trained, "point_training") / "model.pt")


@pytest.mark.parametrize("segment_with", ["otsu", "colors", "pseudo_masks", "points", "final"])
def test_evaluating_what_each_stage_segments(data: Path, trained: Path, tmp_path: Path, segment_with: str) -> None:
    keys: dict[str, Any] = {"ckpt_dir": str(trained / "models"), "stages_dir": str(trained / "stages")}
    run(data, tmp_path, EVALUATE, "evaluating", segment_with=segment_with, **keys)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["list"], found["cases"], found["settings"]["segment_with"]) == ("test", 2, segment_with)
    assert 0 <= found["metrics"]["aji"] <= 1
    if segment_with in ("otsu", "colors", "pseudo_masks"):  # the others have learned for eight steps
        assert found["metrics"]["aji"] > 0.6 and found["metrics"]["detection_f1"] == pytest.approx(1)


def test_training_ends_with_the_stage_that_segments(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, segment_with="points")
    assert [len(list(tmp_path.glob(f"stages/{name}-*"))) for name in STAGES] == [1, 1, 1, 0]
    assert not (tmp_path / "models" / "model.pt").exists()


def test_two_processes_train_equal_weights_in_all_stages(data: Path, tmp_path: Path) -> None:
    """Each says what it has at the end; statistics of batches are its own, and rank 0 saves its."""
    step = "$torch.save({k: dict(m.named_parameters()) for k, m in zip('abc', %s)}, @output_dir + '/rank%s.pt')"
    modules = "[@pretrain::module, @points::module, @train::module]"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        overlay = tmp_path / f"rank{rank}.json"
        overlay.write_text(json.dumps({"+fitting": [step % (modules, rank)]}))
        names = (*TRAIN, "multi_gpu_train", overlay)
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(fork(lambda names=names: run(data, tmp_path, names), **ranks, **address))
    assert [join(process) for process in processes] == [0, 0]
    ours, theirs = (weights(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name in "abc":
        assert ours[name].keys() == theirs[name].keys() and len(ours[name]) > 10
        assert all(torch.equal(value, theirs[name][key]) for key, value in ours[name].items())
    assert len(list(tmp_path.glob("stages/*/stage.json"))) == 4 and (tmp_path / "models" / "model.pt").is_file()
