# SPDX-License-Identifier: Apache-2.0
"""Drawn abdominal CT: geometry, organs, lists, and the label maps of partly labeled patients."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, ResizeWithPadOrCropd
from scipy import ndimage

from fewlabel.data import CachedDataset, StreamLoader, reading, splits
from fewlabel.data.phantoms.ct_abdomen import AbdomenScan, write_dataset
from fewlabel.losses import PartialLabelLoss
from fewlabel.transforms import LabelsPresentd, RandFlipPairsd

LIVER, LEFT_KIDNEY, RIGHT_KIDNEY, SPLEEN = 1, 2, 3, 4


@pytest.fixture(scope="module")
def scans() -> list[tuple[AbdomenScan, np.ndarray, np.ndarray]]:
    made = [AbdomenScan((0, patient)) for patient in range(12)]
    return [(scan, *scan.volume()) for scan in made]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ct") / "set", patients=(2, 1, 1, 1, 3), size=(32, 32, 12))


def test_a_patient_depends_on_the_seed_alone() -> None:
    image, label = AbdomenScan((0, 3)).volume()
    np.random.seed(0)  # noqa: NPY002
    again = AbdomenScan((0, 3)).volume()
    assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])
    assert not np.array_equal(label, AbdomenScan((0, 4)).volume()[1])
    assert image.dtype == np.int16 and label.dtype == np.uint8 and image.shape == label.shape == (64, 64, 24)


def test_organs_are_where_a_patient_has_them(scans: list[tuple[AbdomenScan, np.ndarray, np.ndarray]]) -> None:
    for scan, _, label in scans:
        assert nib.aff2axcodes(scan.affine) == ("L", "P", "S")
        left, back, _ = np.array(
            [
                np.array(ndimage.center_of_mass(label == organ)) * scan.spacing_mm
                for organ in (LIVER, LEFT_KIDNEY, RIGHT_KIDNEY, SPLEEN)
            ]
        ).T
        middle = 32 * scan.spacing_mm[0]
        assert left[0] < middle and left[2] < middle < left[1] and middle < left[3]
        assert min(back[1], back[2]) > back[0]
        volume_ml = np.bincount(label.ravel(), minlength=5)[1:] * np.prod(scan.spacing_mm) / 1000
        assert 500 < volume_ml[0] < 2500 and volume_ml[1:].min() > 40 and volume_ml[1:].max() < 400, volume_ml


def test_shapes_grids_and_intensities_vary(scans: list[tuple[AbdomenScan, np.ndarray, np.ndarray]]) -> None:
    assert len({scan.spacing_mm for scan, _, _ in scans}) == len(scans)
    assert all(scan.spacing_mm[2] / scan.spacing_mm[0] > 1.01 for scan, _, _ in scans)
    sizes = np.array([(label == LEFT_KIDNEY).sum() for _, _, label in scans])
    liver = np.array([image[label == LIVER].mean() for _, image, label in scans])
    assert sizes.std() / sizes.mean() > 0.05 and liver.std() > 5
    for _, image, _ in scans:
        assert image.min() == -1024 and image.max() > 350
        border = np.concatenate([image[0].ravel(), image[-1].ravel(), image[:, 0].ravel()])
        assert np.median(border) < -900


def test_lists_and_files(small: Path) -> None:
    content = json.loads((small / "datalist.json").read_text())
    lists = ("training", "validation", "unlabeled", "test", "partial_label")
    assert [len(content[name]) for name in lists] == [2, 1, 1, 1, 3]
    items = [item for name in lists for item in content[name]]
    assert len({item["patient"] for item in items}) == len(items) == len({item["image"] for item in items})
    assert all("label" not in item for item in content["unlabeled"])
    image, label = (nib.load(small / content["training"][0][key]) for key in ("image", "label"))
    assert image.get_data_dtype() == np.int16 and np.array_equal(image.affine, label.affine)
    for item in content["partial_label"]:
        values = set(np.unique(np.asarray(nib.load(small / item["label"]).dataobj))) - {0}
        assert values == set(item["labels_present"]) < {1, 2, 3, 4}


def test_a_set_that_is_there_stays_and_one_that_lacks_a_file_is_drawn_again(small: Path) -> None:
    lost = small / json.loads((small / "datalist.json").read_text())["partial_label"][0]["label"]
    kept = lost.stat().st_mtime_ns
    again = {"patients": (2, 1, 1, 1, 3), "size": (32, 32, 12)}
    write_dataset(small, **again)
    assert lost.stat().st_mtime_ns == kept
    lost.unlink()
    write_dataset(small, **again)
    assert lost.is_file()


def test_partly_labeled_volumes_reach_the_loss(small: Path) -> None:
    split = splits(small, label_budget=1, use_partial_labels=True)
    steps = [*reading(["image", "label"], "LPS", (12.0, 12.0, 12.0)), LabelsPresentd("label", classes=5)]
    steps += [RandFlipPairsd(["image", "label"], pairs=[[2, 3]], prob=0.5)]
    steps += [ResizeWithPadOrCropd(["image", "label"], (32, 32, 12))]
    dataset = CachedDataset(split.labeled, Compose(steps))
    loader = StreamLoader(dataset, batch_size=4, epoch_length=2, keys=("image", "label", "labels_present"))
    for batch in loader:
        stream = batch["labeled"][0]
        present = stream["labels_present"]
        assert present.shape == (4, 5) and present[:, 0].all() and int(present.all(1).sum()) == 1
        for label, told in zip(stream["label"], present, strict=True):
            assert told[label.unique().long()].all()
        logits = torch.zeros(4, 5, 32, 32, 12, requires_grad=True)
        loss = PartialLabelLoss()(logits, stream["label"], present)
        assert loss < PartialLabelLoss()(logits, stream["label"])
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()
