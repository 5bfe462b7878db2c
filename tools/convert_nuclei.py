# SPDX-License-Identifier: Apache-2.0
"""Convert published sets of nuclei to images, label maps and a data list.

``python tools/convert_nuclei.py monuseg --source "MoNuSeg 2018 Training Data" --output data/monuseg``
``python tools/convert_nuclei.py bcdata --source BCData --output data/bcdata``

Nothing is downloaded: the pages of the sets say where they are and under which terms. A folder that exists stays as it
is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from fewlabel.data.converters import convert_bcdata, convert_monuseg


def monuseg(source: str, output: str, validation: float | str | Sequence[str] = 0.2, seed: int = 0) -> None:
    """Convert MoNuSeg: TIFF tiles with outlines of nuclei as ImageScope XML.

    Args:
        source: folder with the unpacked training data, and the test data where they are wanted, in it or below.
        output: folder to make.
        validation: share of the training tiles, as whole patients, or names of patients.
        seed: of the draw of patients.
    """
    _tell(convert_monuseg(str(source), str(output), validation, seed), output)


def bcdata(source: str, output: str) -> None:
    """Convert BCData: Ki-67 tiles with the centers of positive and negative cells as HDF5 (needs h5py).

    Args:
        source: folder with ``images`` and ``annotations``.
        output: folder to make.
    """
    _tell(convert_bcdata(str(source), str(output)), output)


def _tell(found: Mapping[str, Any], output: str) -> None:
    for name, value in found.items():
        print(f"{name}: {value}")
    print(f"train on it with: --dataset_dir {Path(output).expanduser().absolute()}")


if __name__ == "__main__":
    fire.Fire({"monuseg": monuseg, "bcdata": bcdata})
