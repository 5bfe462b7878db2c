# SPDX-License-Identifier: Apache-2.0
"""A DICOM Segmentation object of a label map, by highdicom; imported where one is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

import fewlabel

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SIDES = ("left ", "right ")


def segmentation(
    labels: NDArray[np.uint8], affine: NDArray[np.floating[Any]], slices: Sequence[Any], class_names: Sequence[str]
) -> Any:
    """Return the object, with a binary segment for each class that occurs.

    highdicom's volumes have the axes slice, row, column, and places in LPS; ours are turned, and in RAS.

    Args:
        labels: (W, H, D), classes, 0 background; at least one voxel of another.
        affine: (4, 4), from voxels to mm, RAS as MONAI has it.
        slices: the images of the series, pydicom's, pixels not needed.
        class_names: by class, background first.

    Returns:
        A ``highdicom.seg.Segmentation``.
    """
    present = [c for c in range(1, len(class_names)) if (labels == c).any()]
    volume = highdicom.Volume(
        np.stack([labels.transpose(2, 1, 0) == c for c in present], axis=-1).astype(np.uint8),
        (_RAS_TO_LPS @ affine)[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=slices[0].FrameOfReferenceUID,
        channels={"SegmentNumber": list(range(1, len(present) + 1))},
    )
    return highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, class_names[c]) for number, c in enumerate(present, 1)],
        series_instance_uid=highdicom.UID(),
        series_number=1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="fewlabel",
        manufacturer_model_name="fewlabel",
        software_versions=fewlabel.__version__,
        device_serial_number="0",
        series_description="automatic segmentation, for research",
    )


def _segment(number: int, name: str) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=organ_code(name),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="fewlabel", version=fewlabel.__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )


def organ_code(name: str) -> Any:
    """Return the SNOMED CT code of an organ, by DICOM's dictionary; that of an anatomical structure for the unknown.

    Args:
        name: in English, ``spinal cord``, ``left kidney``.

    Example:
        >>> organ_code("left kidney").meaning, organ_code("lesion 3").meaning
        ('Kidney', 'Anatomical Structure')
    """
    words = name.lower()
    for side in _SIDES:
        words = words.removeprefix(side)
    wanted = "".join(filter(str.isalnum, words))
    found = {keyword.lower(): keyword for keyword in codes.SCT.dir(wanted)} if wanted else {}
    keyword = found.get(wanted) or found.get(wanted + "gland")
    return getattr(codes.SCT, keyword) if keyword else codes.SCT.AnatomicalStructure
