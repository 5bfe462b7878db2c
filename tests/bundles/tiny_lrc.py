# SPDX-License-Identifier: Apache-2.0
"""The LRC bundle at its smallest: drawn volumes of two organs, narrow networks, in this process or in forked ones."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from fewlabel.data.randomness import one_thread
from fewlabel.engines import StreamTrainer

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "multi_organ_ct_segmentation_lrc"
TRAIN = ("train", "light")
INFERENCE = ("inference", "light")
SIZE, SPACING = (24, 22, 14), (2.0, 2.0, 3.0)
SHARED: dict[str, Any] = {
    "spatial_size": [16, 16, 16],
    "spacing_mm": [2.5, 2.5, 2.5],
    "channels": [8, 8, 8],
    "class_names": ["background", "right", "left"],
}
TINY: dict[str, Any] = SHARED | {
    "label_map": {"1": 1, "2": 2, "7": 2},
    "label_budget": 2,
    "epoch_length": 3,
    "pretraining_epochs": 2,
    "max_epochs": 2,
    "val_interval": 2,
    "queue_size": 6,
    "global_channels": 8,
    "dense_channels": 8,
    "local_regions": 4,
    "local_points": 4,
    "local_min_pixels": 2,
    "region_sigma_mm": 0.0,
    "region_min_size_mm3": 150,
}


def volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a body with two balls: (X, Y, Z) intensities in Hounsfield units and labels."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) * s for n, s in zip(SIZE, SPACING, strict=True)), indexing="ij")
    image, label = np.full(SIZE, -1000.0), np.zeros(SIZE, np.uint8)
    image[((x - 24) / 22) ** 2 + ((y - 22) / 20) ** 2 < 1] = 0
    for value, (middle, brightness) in enumerate(((14, 90), (34, 60)), 1):
        center = np.array([middle, 22, 20]) + rng.uniform(-2, 2, 3)
        ball = sum((axis - c) ** 2 for axis, c in zip((x, y, z), center, strict=True)) < rng.uniform(6, 9) ** 2
        image[ball], label[ball] = brightness, value
    return (image + rng.normal(0, 10, SIZE)).round().astype(np.int16), label


def save(file: Path, values: np.ndarray) -> None:
    """Write a volume whose axes run to the left and to the back, unlike those of the network."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])), file)


def dataset(root: Path) -> Path:
    """Write volumes and ``datalist.json``: 4 to train, 1 without label, 2 partly labeled, 1 to validate, 2 to test."""
    counts = {"training": 4, "unlabeled": 1, "partial_label": 2, "validation": 1, "test": 2}
    names = [name for name, count in counts.items() for _ in range(count)]
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in counts}
    for n, name in enumerate(names):
        image, label = volume(n)
        item: dict[str, Any] = {"image": f"images/p{n}.nii.gz", "patient": f"p{n}"}
        save(root / item["image"], image)
        if name == "partial_label":
            item["labels_present"] = [[1], [2, 7]][n % 2]  # 7 is class 2 in other files
            label[label != item["labels_present"][0]] = 0
        if name != "unlabeled":
            item["label"] = f"labels/p{n}.nii.gz"
            save(root / item["label"], label)
        lists[name].append(item)
    (root / "datalist.json").write_text(json.dumps(lists))
    return root


def workflow(
    data: Path | str, out: Path, names: Sequence[str] = TRAIN, run_id: str = "training", **override: Any
) -> ConfigWorkflow:
    """Return an initialized workflow in this process, with all results below ``out``."""
    places = {"bundle_root": BUNDLE, "dataset_dir": data, "output_dir": out, "ckpt_dir": out / "models"}
    made = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in names],
        workflow_type="inference" if "inference" in names else "train",
        run_id=run_id,
        logging_file=False,
        **(SHARED if "inference" in names else TINY)
        | {key: str(place) for key, place in places.items()}
        | {"device": "cpu"}
        | override,
    )
    made.initialize()
    return made


def run(
    data: Path | str, out: Path, names: Sequence[str] = TRAIN, run_id: str = "training", **override: Any
) -> ConfigWorkflow:
    """Run a workflow in this process, with one thread, and return it."""
    with one_thread():
        made = workflow(data, out, names, run_id, **override)
        made.run()
        made.finalize()
    return made


@dataclass(frozen=True)
class Job:
    """A training in a process of its own.

    Args:
        data: folder of the data.
        out: folder of the results.
        names: configs.
        kill_at: the step, counted over all trainings of the process, in which the process kills itself; 0 for none.
        environment: variables of the process.
    """

    data: Path
    out: Path
    names: tuple[str, ...] = TRAIN
    kill_at: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def work(job: Job) -> None:
    """Do the training and write the state of the pre-training's step, rank by rank."""
    os.environ.update(job.environment)
    job.out.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")
    with (job.out / f"log{rank}.txt").open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if job.kill_at:
        _die_in_step(job.kill_at)
    made = run(job.data, job.out, job.names)
    torch.save(made.parser.get_parsed_content("pretrain::module").state_dict(), job.out / f"step{rank}.pt")


def _die_in_step(number: int) -> None:
    iteration, seen = StreamTrainer._iteration, 0

    def dying(self: StreamTrainer, engine: Any, batch: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return iteration(self, engine, batch)

    pytest.MonkeyPatch().setattr(StreamTrainer, "_iteration", dying)
