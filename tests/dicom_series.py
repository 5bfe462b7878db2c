# SPDX-License-Identifier: Apache-2.0
"""A CT series on disk, made of the one slice that pydicom brings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


def ct_series(folder: Path, slices: int = 4, tilt: bool = False) -> Path:
    """A series of a head or foot first CT: files in disorder, slices of 3 mm, pixels of 0.7 mm."""
    folder.mkdir(parents=True)
    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = [0.7, 0.7], 3, 3
    image.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6] if tilt else [1, 0, 0, 0, 1, 0]
    normal = np.array([0, -0.6, 0.8]) if tilt else np.array([0, 0, 1.0])
    for n in range(slices):
        image.InstanceNumber = n + 1
        image.ImagePositionPatient = (np.array([-40.0, -50.0, 12.0]) + 3 * n * normal).tolist()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(folder / f"{(n * 3) % slices}.dcm")
    return folder
