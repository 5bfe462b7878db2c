# SPDX-License-Identifier: Apache-2.0
"""Write ``examples/stages/``: which images are shown, their files and the index that the report reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
from PIL import Image

from fewlabel.data.budget import Splits
from fewlabel.data.formats import files_of
from fewlabel.data.leaks import refuse_labels
from fewlabel.files import atomic, write_json
from fewlabel.transforms.overlay import COLORS, Picture


class Pictured(NamedTuple):
    """What the stages made of one image.

    Attributes:
        panels: name to picture, in their order, ``image`` first.
        slice: of a volume, which slice is shown, counted from 0, and how many there are.
    """

    panels: dict[str, Picture]
    slice: tuple[int, int] | None = None


class StagePictures(ABC):
    """Show what each stage made of a few training images, chosen at even steps of the list and not by any score.

    ``<n>_<panel>.jpg`` are written, and ``index.json``: ``{"class_names": [...] or null, "colors": [[r, g, b], ...],
    "examples": [{"case": ..., "slice": [k, n] or null, "files": {"image": ..., "<panel>": ..., ...}}]}``. Nothing is
    written where only the image would be left.

    Args:
        output_dir: the folder above ``examples``.
        dataset: items with an ``image``, the list that the stages had.
        splits: whose labels must not be opened meanwhile; None guards none.
        class_names: of the colors, for the legend; None has none.
        count: how many images; fewer where the list is short.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Any,
        splits: Splits | None,
        class_names: Sequence[str] | None,
        count: int,
    ) -> None:
        self.folder = Path(output_dir) / "examples" / "stages"
        self.dataset, self.splits, self.count = dataset, splits, count
        self.class_names = None if class_names is None else list(class_names)

    @abstractmethod
    def pictures(self, places: Sequence[int]) -> Iterator[Pictured]:
        """Yield the pictures of some items.

        Args:
            places: in the data set.
        """

    def run(self) -> None:
        """Write the pictures, in the first process only; those of an earlier run are replaced."""
        if idist.get_rank() != 0:
            return
        for old in [*self.folder.glob("*_*.jpg"), self.folder / "index.json"]:
            old.unlink(missing_ok=True)
        items = self.dataset.data
        places = [int(p) for p in np.linspace(0, len(items) - 1, min(self.count, len(items))).round()]
        with refuse_labels(
            self.splits.held_back if self.splits else {}, [f for item in items for f in files_of(item["image"])]
        ):
            made = list(self.pictures(places))
        if all(len(pictured.panels) == 1 for pictured in made):
            return
        numbered = enumerate(zip(places, made, strict=True), 1)
        examples = [self._write(number, place, pictured) for number, (place, pictured) in numbered]
        write_json(
            self.folder / "index.json", {"class_names": self.class_names, "colors": COLORS, "examples": examples}
        )

    def _write(self, number: int, place: int, pictured: Pictured) -> dict[str, Any]:
        files = {panel: f"{number}_{panel}.jpg" for panel in pictured.panels}
        for panel, picture in pictured.panels.items():
            with atomic(self.folder / files[panel]) as temporary:
                Image.fromarray(picture).save(temporary, format="JPEG", quality=88, subsampling=0)
        case = Path(files_of(self.dataset.data[place]["image"])[0]).name
        return {"case": case, "slice": pictured.slice, "files": files}
