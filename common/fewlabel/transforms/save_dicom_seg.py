# SPDX-License-Identifier: Apache-2.0
"""Write predicted label maps of DICOM series as DICOM Segmentation objects."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from pydicom.misc import is_dicom

from fewlabel.errors import ConfigError
from fewlabel.files import atomic
from fewlabel.transforms._meta import FILE_KEY, meta_of, plain, refusal
from fewlabel.transforms.output_names import OutputNames

_HAS_HIGHDICOM = find_spec("highdicom") is not None

WHEN = ("auto", "always", "never")


class SaveDicomSegd(MapTransform):
    """Write the label map of each DICOM series as one Segmentation object with a binary segment a class.

    It stands where the label map has the grid of the series: after ``Invertd``. The object names the series and
    its frame of reference, so that viewers and archives lay it over the images; segments without a voxel are left out,
    and so is the object of a map that is empty. Classes get the SNOMED CT code that DICOM's dictionary has for their
    name (``left kidney``: kidney), others that of an anatomical structure, and keep their name as label.

    Needs the package highdicom (``pip install 'fewlabel[dicom-seg]'``).
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        class_names: Sequence[str],
        when: str = "auto",
        postfix: str = "mask",
        data_root_dir: str | Path = "",
        allow_missing_keys: bool = False,
    ) -> None:
        """Say what is written where.

        Args:
            keys: keys of label maps, (1, *space), integers, ``MetaTensor`` with affine and file name.
            output_dir: folder of the files, made when it is missing; ``<name of the series>_<postfix>.dcm``.
            class_names: by class, background first.
            when: ``auto``: for DICOM series where highdicom is installed; ``always``: for DICOM series; ``never``.
            postfix: of the file names; empty for none.
            data_root_dir: sub-folders of the input below this folder are kept below ``output_dir``; empty keeps none.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ConfigError: an unknown ``when``; ``always`` without highdicom.
        """
        super().__init__(keys, allow_missing_keys)
        if when not in WHEN:
            raise ConfigError(f"dicom_seg is {when!r}: choose one of {', '.join(WHEN)}")
        if when == "always" and not _HAS_HIGHDICOM:
            raise ConfigError("dicom_seg is 'always', which needs highdicom: pip install 'fewlabel[dicom-seg]'")
        self.is_on = when != "never" and _HAS_HIGHDICOM
        self.class_names, self.postfix = list(class_names), postfix
        self.names = OutputNames(output_dir, data_root_dir, "segmentations")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the objects of one item; the item is returned as it came. What is no DICOM series is passed by.

        Raises:
            ConfigError: two series whose objects would have the same name.
            DataError: a label map on another grid than its series.
        """
        out = dict(data)
        for key in self.key_iterator(out) if self.is_on else ():
            source = meta_of(out[key]).get(FILE_KEY)
            if source and (slices := series(source)):
                self._write(out[key], slices, self.names.of(source))
        return out

    def _write(self, label: MetaTensor, slices: Sequence[Any], target: Path) -> None:
        values = plain(label)[0].cpu().numpy().astype(np.uint8)
        values = values[..., None] if values.ndim == 2 else values  # one slice is a volume of one
        expected = (slices[0].Columns, slices[0].Rows, len(slices))
        if values.shape != expected:
            raise refusal(label, f"has {expected} voxels and its label map {values.shape}: write it after Invertd")
        if not values.any():
            return
        from fewlabel.transforms.dicom_seg import segmentation  # half a second that nothing else shall wait for

        with atomic(target.with_name("_".join(filter(None, (target.name, self.postfix))) + ".dcm")) as temporary:
            segmentation(values, np.asarray(label.affine), slices, self.class_names).save_as(temporary)


def series(source: str | Path) -> list[Any]:
    """Return the images of a DICOM series, without their pixels, in the order of their files' names.

    Args:
        source: the folder of one series, or a file; files without DICOM's mark are passed by.
    """
    path = Path(source)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in files if is_dicom(file)]
