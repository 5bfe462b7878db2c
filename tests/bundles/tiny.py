# SPDX-License-Identifier: Apache-2.0
"""A bundle at its smallest: drawn pictures, narrow networks, in this process or on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image
from tests.data.pictures import picture

from fewlabel.data.randomness import one_thread

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
BUNDLE = BUNDLES / "endoscopic_tool_segmentation_mms"
NUCLEI = BUNDLES / "pathology_nuclei_segmentation_psm"
TRAIN = ("train", "light")
EVALUATE = ("train", "light", "evaluate")
INFERENCE = ("inference", "light")
SIZE = (48, 32)
NETWORK: dict[str, Any] = {"encoder": "resnet18d", "encoder_options": {"channels": [4, 4, 8, 8], "stem_width": 4}}
TINY: dict[str, Any] = {"spatial_size": [32, 48], "batch_size": 2, "epoch_length": 2, "max_epochs": 1} | NETWORK
_NUCLEI: dict[str, Any] = {
    **{"spatial_size": [32, 32], "batch_size": 2, "epoch_length": 4, "val_interval": 2, "learning_rate": 0.03},
    **{"pretraining_epochs": 2, "point_epochs": 2, "max_epochs": 2, "map_margin_px": 4},
    "score_encoder_options": {"channels": [4, 4, 8, 8], "stem_width": 4},
}
_KEYS = {BUNDLE: TINY, NUCLEI: _NUCLEI}


def tool_mask(path: Path, seed: int) -> Path:
    """Write a mask with one rectangle that depends on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.random.default_rng(seed).integers(2, (SIZE[0] // 2, SIZE[1] // 2))
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    pixels[y : y + 12, x : x + 16] = 1
    Image.fromarray(pixels).save(path)
    return path


def dataset(root: Path, training: int = 8, validation: int = 2, test: int = 3, unlabeled: int = 2) -> Path:
    """Write images, masks and ``datalist.json``; return the folder. Frame i is ``images/f<i>.png``."""
    lists: dict[str, list[dict[str, str]]] = {}
    frame = 0
    for name, count in (("training", training), ("validation", validation), ("test", test), ("unlabeled", unlabeled)):
        lists[name] = []
        for _ in range(count):
            picture(root / "images" / f"f{frame:02d}.png", seed=frame, size=SIZE)
            item = {"image": f"images/f{frame:02d}.png", "video": name}
            if name != "unlabeled":
                item["label"] = f"labels/f{frame:02d}.png"
                tool_mask(root / item["label"], seed=frame)
            lists[name].append(item)
            frame += 1
    (root / "datalist.json").write_text(json.dumps(lists))
    return root


def settings(data: Path | str, out: Path, bundle: Path = BUNDLE, **override: Any) -> dict[str, Any]:
    """Return the keys of a tiny run on ``data`` with all results below ``out``."""
    places = {"bundle_root": str(bundle), "dataset_dir": str(data), "output_dir": str(out)}
    return _KEYS[bundle] | places | {"ckpt_dir": str(out / "models"), "device": "cpu"} | override


def config_files(names: Sequence[str | Path], bundle: Path = BUNDLE) -> list[str]:
    """Return paths of configs: names of the bundle's own, or paths of others."""
    return [str(n if isinstance(n, Path) else bundle / "configs" / f"{n}.json") for n in names]


def workflow(
    data: Path | str,
    out: Path,
    names: Sequence[str | Path] = TRAIN,
    run_id: str = "training",
    bundle: Path = BUNDLE,
    **override: Any,
) -> ConfigWorkflow:
    """Return an initialized workflow in this process."""
    made = ConfigWorkflow(
        config_file=config_files(names, bundle),
        workflow_type="inference" if "inference" in names else "train",
        run_id=run_id,
        logging_file=False,
        **settings(data, out, bundle, **override),
    )
    made.initialize()
    return made


def run(
    data: Path | str, out: Path, names: Sequence[str | Path] = TRAIN, run_id: str = "training", **override: Any
) -> ConfigWorkflow:
    """Run a workflow in this process and return it; with one thread, because two lose more than they gain here."""
    with one_thread():
        made = workflow(data, out, names, run_id, **override)
        made.run()
        made.finalize()
    return made


def command(
    names: Sequence[str | Path] = TRAIN,
    run_id: str = "training",
    processes: int = 1,
    bundle: Path = BUNDLE,
    **keys: Any,
) -> list[str]:
    """Return the command line of a run; with several processes, under ``torchrun``."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launcher = torchrun if processes > 1 else []
    line = [
        sys.executable,
        *launcher,
        "-m",
        "monai.bundle",
        "run",
        run_id,
        "--config_file",
        str(config_files(names, bundle)),
    ]
    for key, value in keys.items():
        line += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return line


def start(line: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command in ``folder``, in a process group of its own, on the CPU with one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "stdout.txt").open("a") as out, (folder / "stderr.txt").open("a") as err:
        return subprocess.Popen(
            line, cwd=folder, env=environment, stdout=out, stderr=err, text=True, start_new_session=True
        )
