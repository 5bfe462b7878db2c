# SPDX-License-Identifier: Apache-2.0
"""A small data set of drawn volumes, and a process that makes their regions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fewlabel.data import precompute_regions, reading
from fewlabel.transforms import AddRegionsd

SETTINGS: dict[str, Any] = {"min_size_mm3": 60, "window": [-160, 240], "body": {"threshold": -300}}


def draw(folder: Path, count: int, unlabeled: int = 0, size: tuple[int, ...] = (16, 18, 12)) -> Path:
    """Write volumes with two organs and their data list; return the folder."""
    lists: dict[str, list[dict[str, str]]] = {"training": [], "unlabeled": []}
    for n in range(count + unlabeled):
        rng = np.random.default_rng(n)
        label = np.zeros(size, np.uint8)
        label[4:8, 4:9, 3:8], label[9:13, 9:14, 4:9] = 1, 2
        values = np.full(size, -1000.0)
        values[2:-2, 2:-2, 1:-1] = 0
        image = np.where(values < 0, values, label * 60 + rng.normal(0, 5, size)).astype(np.int16)
        item = {}
        for key, array in (("image", image), ("label", label)):
            if key == "label" and n >= count:
                continue
            item[key] = f"{key}_{n}.nii.gz"
            folder.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])), folder / item[key])
        lists["training" if n < count else "unlabeled"].append(item)
    names = {"labels": {"0": "background", "1": "small organ", "2": "other organ"}}
    (folder / "datalist.json").write_text(json.dumps(names | lists))
    return folder


class NoteMade(AddRegionsd):
    """Write down each map that is made, by whatever process."""

    def __call__(self, data: Any) -> Any:
        """Append a line, then make the map."""
        with Path(str(self.regions.folder), "made.txt").open("a") as stream:
            stream.write(f"{data['image'].meta['filename_or_obj']}\n")
        return super().__call__(data)


def steps(folder: str | Path) -> list[Any]:
    """Transform of a training that ends with regions in a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [*reading(["image"]), NoteMade(folder=folder, **SETTINGS)]


def items(folder: Path) -> list[dict[str, str]]:
    """Image of each volume."""
    return [{"image": str(path)} for path in sorted(folder.glob("image_*.nii.gz"))]


if __name__ == "__main__":
    precompute_regions(items(Path(sys.argv[1])), steps(sys.argv[2]), int(sys.argv[3]))
