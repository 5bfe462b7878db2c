# SPDX-License-Identifier: Apache-2.0
"""The LRC bundle: stages are done once, resume exactly, serve all budgets and equal on all ranks; no label leaks."""

from __future__ import annotations

import csv
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from tests.bundles.tiny_lrc import INFERENCE, TRAIN, Job, dataset, run, save, work, workflow
from tests.dicom_series import ct_series

from fewlabel.data import splits
from fewlabel.errors import ConfigError
from fewlabel.evidence.child import PRELOAD
from fewlabel.evidence.pool import run_jobs

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a training with two labels; read only."""
    folder = tmp_path_factory.mktemp("trained")
    run(data, folder)
    return folder


def stage(folder: Path, name: str = "pretraining") -> Path:
    (found,) = (folder / "stages").glob(f"{name}-*")
    return found


def tensors(file: Path) -> Weights:
    """All tensors of a file, however nested."""
    return dict(_tensors("", torch.load(file, weights_only=True)))


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(f"{name}.{key}", part)


def same(a: Weights, b: Weights) -> bool:
    assert a.keys() == b.keys() and len(a) > 20
    return all(torch.equal(a[key], b[key]) for key in a)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def last(folder: Path) -> Weights:
    return tensors(folder / "models" / "resume" / "last.pt")


def test_training_runs_both_contrasts_then_fine_tunes(trained: Path) -> None:
    rows = history(stage(trained))
    assert len(rows) == 2
    assert all(np.isfinite([float(row[term]) for row in rows for term in ("loss", "global", "local")]))
    assert all(float(row["valid_regions"]) >= 2 for row in rows), "regions are drawn, so that the local term can teach"
    content = torch.load(stage(trained) / "pretrained.pt", weights_only=True)
    assert content["recipe"] == {
        "spatial_dims": 3,
        "orientation": "RAS",
        "spacing_mm": [2.5, 2.5, 2.5],
        "window": [-160, 240],
    }
    assert not any("output_block" in name for name in content["state_dict"]), "no head"
    assert {"mean_dice", "hd95_mm"} <= history(trained)[-1].keys()
    assert (trained / "models" / "model.safetensors").is_file() and (trained / "report.html").is_file()


def test_pictures_of_the_stages_are_in_the_report(trained: Path) -> None:
    folder = trained / "examples" / "stages"
    examples = json.loads((folder / "index.json").read_text())["examples"]
    panels = ["image", "superpixels", "sampling", "features_before", "features_after", "result"]
    assert len(examples) == 3 and all(list(example["files"]) == panels for example in examples)
    assert all((folder / name).is_file() for example in examples for name in example["files"].values())
    assert "Stage by stage" in (trained / "report.html").read_text(encoding="utf-8")


def test_the_pretrained_weights_are_what_fine_tuning_starts_from(data: Path, trained: Path, tmp_path: Path) -> None:
    made = run(data, tmp_path, stages_dir=str(trained / "stages"), learning_rate=1e-30)
    network = made.parser.get_parsed_content("network").first.state_dict()
    pretrained = torch.load(stage(trained) / "pretrained.pt", weights_only=True)["state_dict"]
    assert all(torch.allclose(network[name], value) for name, value in pretrained.items())


def test_a_stage_that_is_done_serves_other_budgets(data: Path, trained: Path, tmp_path: Path) -> None:
    file = stage(trained) / "pretrained.pt"
    before = file.stat().st_mtime_ns
    made = run(data, tmp_path, stages_dir=str(trained / "stages"), label_budget=1, split_seed=3)
    assert file.stat().st_mtime_ns == before and stage(trained)
    assert "pretrain::trainer" not in made.parser.ref_resolver.resolved_content, "it is not even built"
    assert not same(last(tmp_path), last(trained))


@pytest.mark.parametrize(
    "keys", [{"region_kind": "grid"}, {"local_weight": 0.5}, {"window": [0, 100]}, {"seed": 1}, {"batch_size": 3}]
)
def test_what_a_pretraining_depends_on_names_its_folder(
    data: Path, trained: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    made = workflow(data, tmp_path, **keys)
    assert made.parser.get_parsed_content("pretrain::stage").folder.name != stage(trained).name


def test_the_baseline_pretrains_nothing(data: Path, trained: Path, tmp_path: Path) -> None:
    run(data, tmp_path, max_epochs=1, method_enabled=False)
    assert not (tmp_path / "stages").exists()
    (example, *_) = json.loads((tmp_path / "examples" / "stages" / "index.json").read_text())["examples"]
    assert list(example["files"]) == ["image", "result"]
    assert history(tmp_path)[0]["loss"] != history(trained)[0]["loss"]


def test_a_checkpoint_of_another_recipe_is_refused_in_one_sentence(data: Path, trained: Path, tmp_path: Path) -> None:
    keys = {"init_checkpoint": str(stage(trained) / "pretrained.pt"), "window": [0, 100], "max_epochs": 1}
    with pytest.raises(ConfigError, match=r"window \[-160, 240\] \(here \[0, 100\]\): give --window") as error:
        run(data, tmp_path / "refused", **keys)
    assert "\n" not in str(error.value)
    run(data, tmp_path / "warned", recipe_mismatch="warn", **keys)
    assert not (tmp_path / "warned" / "stages").exists(), "with a checkpoint nothing is pre-trained"


def test_labels_then_contrast_in_two_encoders_then_inference_on_the_grid_of_the_file(
    data: Path, tmp_path: Path
) -> None:
    names = ("train", "light", "supervised_pretraining_lrc", "dual")
    run(data, tmp_path, names, max_epochs=1)
    supervised, local = stage(tmp_path, "supervised_pretraining"), stage(tmp_path)
    assert "supervised" in history(supervised)[0] and "global" not in history(local)[0]
    run(data, tmp_path, (*names, "evaluate"), "evaluating")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["list"] == "test" and found["cases"] == 2 and found["columns"]["mean_dice"][0] == "dice_right"
    run(data, tmp_path, (*INFERENCE, "dual"), "inference")
    images = [nib.load(data / "images" / f"p{n}.nii.gz") for n in (8, 9)]
    masks = [nib.load(tmp_path / "predictions" / f"p{n}_mask.nii.gz") for n in (8, 9)]
    for image, mask in zip(images, masks, strict=True):
        assert mask.shape == image.shape and np.allclose(mask.affine, image.affine)
        assert set(np.unique(mask.get_fdata())) <= {0, 1, 2}


def test_dicom_series_in_and_segmentation_out(trained: Path, tmp_path: Path) -> None:
    series = ct_series(tmp_path / "in" / "series", slices=10)
    run(series, tmp_path, INFERENCE, "inference", ckpt_dir=str(trained / "models"))
    mask = nib.load(tmp_path / "predictions" / "series_mask.nii.gz").get_fdata()
    written = pydicom.dcmread(tmp_path / "predictions" / "series_mask.dcm")
    assert mask.shape == (128, 128, 10)
    assert [s.SegmentLabel for s in written.SegmentSequence] == [
        n for c, n in ((1, "right"), (2, "left")) if (mask == c).any()
    ]
    assert int(np.unpackbits(np.frombuffer(written.PixelData, np.uint8)).sum()) == (mask > 0).sum() > 0


def poisoned(data: Path, to: Path, which: Callable[[dict[str, Any]], bool]) -> Path:
    """Copy the data and exchange the organs in the labels of some items."""
    copy = Path(shutil.copytree(data, to))
    for items in json.loads((data / "datalist.json").read_text()).values():
        for item in filter(which, items):
            label = nib.load(data / item["label"]).get_fdata().astype(np.uint8)
            save(copy / item["label"], np.select([label == 1, label == 2], [2, 1]).astype(np.uint8))
    return copy


def test_wrong_labels_beyond_the_budget_change_no_weight(data: Path, trained: Path, tmp_path: Path) -> None:
    drawn = {Path(item["label"]).name for item in splits(data, label_budget=2).labeled}
    beyond = poisoned(data, tmp_path / "beyond", lambda item: "label" in item and Path(item["label"]).name not in drawn)
    run(beyond, tmp_path / "a")
    assert same(tensors(stage(tmp_path / "a") / "pretrained.pt"), tensors(stage(trained) / "pretrained.pt"))
    assert same(last(tmp_path / "a"), last(trained))
    within = poisoned(data, tmp_path / "within", lambda item: Path(item.get("label", "")).name in drawn)
    run(within, tmp_path / "b", stages_dir=str(trained / "stages"))
    assert stage(trained), "labels are no part of a pre-training on images"
    assert not same(last(tmp_path / "b"), last(trained)), "the comparison above can fail"


def test_killed_in_both_trainings_and_resumed_equals_uninterrupted(data: Path, trained: Path, tmp_path: Path) -> None:
    """Six steps of pre-training, six of fine-tuning: killed in the fifth, then in the fifth of the second."""
    for kill_at, where in ((5, tmp_path / "stages"), (3 + 5, tmp_path / "models"), (0, tmp_path)):
        ((_, code),) = run_jobs([("", Job(data, tmp_path, kill_at=kill_at))], work, 1, PRELOAD)
        assert code == (-9 if kill_at else 0), (tmp_path / "log0.txt").read_text()[-3000:]
        if kill_at:
            (state,) = where.rglob("last.pt")
            assert torch.load(state, weights_only=True)["epoch"] == 1
    assert same(tensors(stage(tmp_path) / "pretrained.pt"), tensors(stage(trained) / "pretrained.pt"))
    assert same(last(tmp_path), last(trained))


def test_two_processes_have_one_queue(data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    names = (*TRAIN, "multi_gpu_train")
    jobs = [(rank, Job(data, tmp_path, names, environment=place | {"RANK": rank, "LOCAL_RANK": rank})) for rank in "01"]
    codes = dict(run_jobs(jobs, work, 2, PRELOAD))
    assert codes == {"0": 0, "1": 0}, (tmp_path / "log0.txt").read_text()[-3000:]
    ours, theirs = (torch.load(tmp_path / f"step{rank}.pt", weights_only=True) for rank in "01")
    queue = ours["global_loss.queue"]
    assert int(ours["global_loss.filled"]) == 6 and len(queue.unique(dim=0)) == 6
    for name, value in ours.items():
        if not name.endswith(("running_mean", "running_var")):
            assert torch.equal(value, theirs[name]), name
