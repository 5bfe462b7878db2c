# SPDX-License-Identifier: Apache-2.0
"""Write predicted instances as label map, table, polygons and picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from fewlabel.transforms._meta import FILE_KEY, meta_of
from fewlabel.transforms.instance_files import InstanceFiles, staged
from fewlabel.transforms.instance_table import InstanceTable
from fewlabel.transforms.output_names import OutputNames
from fewlabel.transforms.save_overlay import label_picture, read_picture


class SaveInstancesd(MapTransform):
    """Write the instances of each label map in the formats of :class:`InstanceFiles`, named after the input file.

    It stands where the label map has the grid of the file: after ``Invertd``, or where nothing has resized the image.
    Classes and mean probabilities are taken from ``<key>_kinds`` and ``<key>_probability``, which
    ``InstancesFromLogitsd`` leaves; where they are missing every instance is of class 1 and its probability 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        files: InstanceFiles | None = None,
        data_root_dir: str | Path = "",
        image_key: str | None = None,
        axes: str = "WH",
        allow_missing_keys: bool = False,
    ) -> None:
        """Say what is written where.

        Args:
            keys: keys of label maps, (1, W, H) or (W, H), integers: 0 and 1 ... N, each once.
            output_dir: folder of the files, made when it is missing.
            files: which files, and how; None takes the defaults of :class:`InstanceFiles`.
            data_root_dir: sub-folders of the input below this folder are kept below ``output_dir``; empty keeps none.
            image_key: key whose metadata names the input file; None takes the label map's own metadata.
            axes: order of the last two axes. ``WH`` is what MONAI's readers and ``Invertd`` give, ``HW`` what networks
                see.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ValueError: axes other than the two.
        """
        super().__init__(keys, allow_missing_keys)
        if axes not in ("WH", "HW"):
            raise ValueError(f"expected axes 'WH' or 'HW', received {axes!r}.")
        self.files = InstanceFiles() if files is None else files
        self.names = OutputNames(output_dir, data_root_dir, "instances")
        self.image_key, self.axes = image_key, axes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files of one item; the item is returned as it came.

        Raises:
            ConfigError: two input files whose results would have the same name.
            ValueError: no file name in the metadata, a label map of another size than its file, or other labels than
                0 ... N.
        """
        out = dict(data)
        for key in self.key_iterator(out):
            source = meta_of(out[self.image_key or key]).get(FILE_KEY)
            if not source:
                raise ValueError(f"expected a file name in the metadata of '{self.image_key or key}', found none.")
            picture, labels = read_picture(source), label_picture(out[key], self.axes).astype(np.int32)
            if labels.shape != picture.shape[:2]:
                raise ValueError(
                    f"expected '{key}' to be one label map of the size of its file (H, W) = {picture.shape[:2]}, "
                    f"received {labels.shape} when read as axes={self.axes!r}; check Invertd and axes."
                )
            table = _table(labels, out.get(f"{key}_kinds"), out.get(f"{key}_probability"), str(key))
            with staged(self.names.of(str(source))) as prefix:
                self.files.write(prefix, labels, table, picture)
        return out


def _table(labels: NDArray[np.int32], kinds: Any, probability: Any, key: str) -> InstanceTable:
    """Return the table of a label map, with what is known of each instance."""
    present = np.unique(labels)
    count = int(present[-1]) if present.size else 0
    if present.size and (present[0] < 0 or len(present) - (present[0] == 0) != count):
        raise ValueError(f"expected '{key}' to hold 0 and 1 ... N, received {len(present)} values up to {count}.")
    kind_of = np.ones(count + 1, np.uint8)
    mean_of = np.ones(count + 1, np.float32)
    for given, table, name in ((kinds, kind_of, "kinds"), (probability, mean_of, "probability")):
        if given is not None:
            values = np.asarray(given)
            if values.shape != (count,):
                raise ValueError(f"expected '{key}_{name}' of {count} instances, received shape {values.shape}.")
            table[1:] = values
    facts = InstanceTable(count, int(kind_of.max()))
    facts.add(labels, mean_of[labels], kind_of[labels])
    return facts
