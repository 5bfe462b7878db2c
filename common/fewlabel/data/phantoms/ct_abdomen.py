# SPDX-License-Identifier: Apache-2.0
"""Abdominal CT, drawn from numbers alone, with exact labels of four organs.

Liver, kidneys and spleen among fat, muscle, bone, lungs, bowel with gas, stomach and vessels; each patient has a build,
a phase of contrast medium, a grid and shapes of his own, and voxels are anisotropic. Everything is a function of
``(seed, patient)``. The volumes exist so that each command runs anywhere; no claim about a method rests on them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewlabel.data.phantoms._abdomen import Canvas, draw_build, paint_body, paint_organs, swell
from fewlabel.data.phantoms._write import DATALIST, LISTS, write_once

VERSION = "1"
SIZE = (64, 64, 24)
_PARTIAL = ((1, 4), (1, 3), (2, 3, 4))  # what the partly labeled patients have, in turn


class AbdomenScan:
    """The scan of one patient."""

    def __init__(self, seed: int | Sequence[int], size: tuple[int, int, int] = SIZE) -> None:
        """Draw the grid.

        Args:
            seed: non-negative integer or integers.
            size: voxels along left, posterior and superior; the field of view stays as it is.
        """
        self.seed = [seed] if isinstance(seed, int) else [int(s) for s in seed]
        self.size = size
        rng = self._rng(0)
        in_plane, through = float(rng.uniform(345, 375)), float(rng.uniform(138, 156))
        self.spacing_mm = (round(in_plane / size[0], 3), round(in_plane / size[1], 3), round(through / size[2], 3))
        steps = np.array(self.spacing_mm)
        self.affine = np.diag([-steps[0], -steps[1], steps[2], 1.0])
        self.affine[:3, 3] = [(size[0] - 1) / 2 * steps[0], (size[1] - 1) / 2 * steps[1], -(size[2] - 1) / 2 * steps[2]]

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, stream])

    def volume(self) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Draw the patient.

        Returns:
            Image (X, Y, Z), int16, Hounsfield units, and labels (X, Y, Z), uint8: 0 background, 1 liver, 2 left kidney,
            3 right kidney, 4 spleen. Axes run to the left, back and head of the patient (``affine``, in millimeters).
        """
        position = np.stack(np.meshgrid(*map(self._axis, range(3)), indexing="ij")).astype(np.float32)
        rng = self._rng(1)
        bent = position + np.stack([3.5 * swell(rng, self.size, self.spacing_mm, 22.0) for _ in range(3)])
        blur_mm = float(np.mean(self.spacing_mm))
        build = draw_build(rng)
        canvas = Canvas(bent, blur_mm)
        paint_body(canvas, build, rng)
        paint_organs(canvas, build, rng)
        texture = 7 * swell(rng, self.size, self.spacing_mm, 4.0)
        grain = ndimage.gaussian_filter(rng.standard_normal(self.size, np.float32), (0.5, 0.5, 0))
        values = canvas.values + texture * (canvas.values > -300) + rng.uniform(14, 30) * grain
        return np.clip(np.rint(values), -1024, 3071).astype(np.int16), canvas.labels

    def _axis(self, axis: int) -> NDArray[np.float64]:
        places = np.arange(self.size[axis], dtype=np.float64) - (self.size[axis] - 1) / 2
        return np.asarray(places * self.spacing_mm[axis], np.float64)


def write_dataset(
    folder: str | Path,
    patients: tuple[int, int, int, int, int] = (12, 3, 6, 3, 3),
    seed: int = 0,
    size: tuple[int, int, int] = SIZE,
) -> Path:
    """Write volumes, label maps and a Decathlon-style data list; nothing happens when they are there.

    Args:
        folder: where to; ``images``, ``labels`` and ``datalist.json`` are made in it.
        patients: number of patients for training, validation, without label, test, and partly labeled.
            ``labels_present`` of the last names the organs that their label map holds; others are there, but not drawn
            into it.
        seed: which draw, at least 0.
        size: voxels along each axis.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    identity: dict[str, Any] = {"name": "ct_abdomen", "version": VERSION, "seed": seed}
    identity |= {"patients": list(patients), "size": list(size)}

    def write(draft: Path) -> None:
        numbers = itertools.count()
        lists: dict[str, list[dict[str, Any]]] = {}
        for name, count in zip(LISTS, patients, strict=True):
            taken = list(itertools.islice(numbers, count))
            lists[name] = [_write_patient(draft, name, n, AbdomenScan((seed, n), size)) for n in taken]
        (draft / DATALIST).write_text(json.dumps(_HEADER | lists | {"phantom": identity}, indent=1) + "\n")

    return write_once(folder, identity, write)


_HEADER: dict[str, Any] = {
    "name": "Drawn abdominal CT",
    "description": "Procedural CT volumes with exact labels of four organs; no patient, no scanner.",
    "licence": "CC0-1.0",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "left kidney", "3": "right kidney", "4": "spleen"},
    "tensorImageSize": "3D",
}


def _write_patient(folder: Path, name: str, number: int, scan: AbdomenScan) -> dict[str, Any]:
    image, label = scan.volume()
    patient = f"patient{number:02d}"
    item: dict[str, Any] = {"image": f"images/{patient}.nii.gz", "patient": patient}
    _save(folder / item["image"], image, scan.affine)
    if name == "unlabeled":
        return item
    if name == "partial_label":
        item["labels_present"] = list(_PARTIAL[number % len(_PARTIAL)])
        label[~np.isin(label, item["labels_present"])] = 0
    item["label"] = f"labels/{patient}.nii.gz"
    _save(folder / item["label"], label, scan.affine)
    return item


def _save(file: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    file.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), file)
