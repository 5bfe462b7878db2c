# SPDX-License-Identifier: Apache-2.0
"""What the tests of the bundles share: pictures that can be learned in seconds, and two short trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.bundles.tiny import BUNDLE, dataset, run, tool_mask

EASY = {"max_epochs": 6, "epoch_length": 5, "batch_size": 4, "labeled_augmentation": "weak"}


def listing(folder: Path) -> set[str]:
    """Return the files below a folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def easy_dataset(root: Path, inverted: bool = False, **counts: int) -> Path:
    """Write frames whose tool is bright on dark noise; ``inverted`` labels of training say the opposite."""
    dataset(root, **counts)
    for file in sorted((root / "images").iterdir()):
        label = root / "labels" / file.name
        shape = label if label.exists() else tool_mask(root / "hidden" / file.name, seed=int(file.stem[1:]))
        tool = np.asarray(Image.open(shape))
        noise = np.asarray(Image.open(file))
        Image.fromarray((noise // 4 + 150 * tool[..., None]).astype(np.uint8)).save(file)
        if inverted and int(file.stem[1:]) < counts.get("training", 8):
            Image.fromarray(1 - tool).save(label)
    return root


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Easy frames: 6 with a label for training, 4 without one, 2 to validate, 3 to test."""
    return easy_dataset(tmp_path_factory.mktemp("frames"), training=6, validation=2, test=3, unlabeled=4)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a training on phantoms, two epochs of two steps, validated after the second; read only."""
    folder = tmp_path_factory.mktemp("trained")
    before = listing(BUNDLE)
    run("", folder, max_epochs=2, val_interval=2)
    assert listing(BUNDLE) == before, "a training with folders of its own wrote into the bundle"
    return folder


@pytest.fixture(scope="session")
def skilled(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one network that finds the tools of ``frames``; read only."""
    folder = tmp_path_factory.mktemp("skilled")
    run(frames, folder, method_enabled=False, learning_rate=0.1, val_interval=6, **EASY)
    return folder
