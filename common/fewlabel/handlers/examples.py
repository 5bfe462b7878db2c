# SPDX-License-Identifier: Apache-2.0
"""``examples/``: the worst, median and best cases of an evaluation as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from monai.utils import string_list_all_gather
from PIL import Image

from fewlabel.files import atomic, write_json
from fewlabel.handlers._cases import file_of, gather_cases, key_scores, ranked
from fewlabel.handlers._examples import Kept, keep
from fewlabel.transforms.overlay import COLORS, overlay

PANELS = ("image", "label", "prediction")


class ExamplesHandler:
    """Write the cases with the worst, median and best key metric: picture, label outline, prediction outline.

    Ranks are known only when all cases are, so the masks of every case are kept, compressed, until then (of a volume
    one slice: that with the largest labeled area). ``examples/<group>_<n>_<panel>.jpg`` are then written by whichever
    process evaluated the case, and ``examples/index.json`` by the first:
    ``{"metric": ..., "better": ..., "class_names": [...], "colors": [[r, g, b], ...], "examples": [{"group": "worst",
    "case": ..., "score": ..., "slice": [k, n] or null, "files": {"image": ..., "label": ..., "prediction": ...}}]}``.

    Args:
        output_dir: the folder above ``examples``.
        count: cases of each group; fewer where the list is short.
        source: where the picture comes from: ``file``, whose own pixels are shown, when the masks are on its grid and
            it is a picture; ``item``, the image of the item, when that is on the grid of the masks.
        axes: order of the masks' first two axes: ``WH`` as MONAI's readers and ``Invertd`` give, ``HW`` as networks
            see.
        class_names: of the values of a mask, background first, each outlined in a color of its own; None when the
            values are instances, all outlined alike.
        size_px: longer side of the pictures.
        data_root: as in :class:`~fewlabel.handlers.ScoresHandler`, whose names of the cases are the same.
        keys: of image, label and prediction in the evaluator's output.

    Note:
        Memory: some kilobytes a case for the masks, some ten more with ``source="item"``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        count: int = 3,
        source: str = "file",
        axes: str = "WH",
        class_names: Sequence[str] | None = None,
        size_px: int = 512,
        data_root: str | Path | None = None,
        keys: Sequence[str] = ("image", "label", "pred"),
    ) -> None:
        if source not in ("file", "item") or axes not in ("WH", "HW"):
            raise ValueError(f"expected source 'file' or 'item' and axes 'WH' or 'HW', received {source!r}, {axes!r}.")
        if count < 1:
            raise ValueError(f"expected a count of 1 or more, received {count}.")
        self.folder = Path(output_dir) / "examples"
        self.count, self.source, self.axes, self.size_px = count, source, axes, size_px
        self.class_names = None if class_names is None else list(class_names)
        self.data_root = data_root
        self.keys = (keys[0], keys[1], keys[2])
        self.colors = COLORS if class_names is not None else COLORS[:1]
        self._kept: list[Kept] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator, which has a key metric."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _open(self, engine: Workflow) -> None:
        self._kept = []

    def _add(self, engine: Workflow) -> None:
        picture_px = self.size_px if self.source == "item" else None
        for item, read in zip(engine.state.output, engine.state.batch, strict=True):
            self._kept.append(keep(item, self.keys, file_of(read, self.keys[0]), self.axes, picture_px))

    def _write(self, engine: Workflow) -> None:
        cases = gather_cases([kept.file for kept in self._kept], self.data_root)
        scores = key_scores(engine, cases.rows)
        higher = bool(engine.metric_cmp_fn(1.0, 0.0))
        chosen = choose(ranked(scores, higher), self.count)
        if idist.get_rank() == 0:
            for old in [*self.folder.glob("*_*.jpg"), self.folder / "index.json"]:
                old.unlink(missing_ok=True)
        idist.barrier()
        slices = string_list_all_gather([json.dumps(kept.slice) for kept in self._kept])
        entries = []
        for group, number, place in chosen:
            files = {panel: f"{group}_{number}_{panel}.jpg" for panel in PANELS}
            self._draw(cases.owners[place], files)
            about = {"group": group, "case": cases.names[place], "score": scores[place]}
            entries.append(about | {"slice": json.loads(slices[cases.rows[place]]), "files": files})
        idist.barrier()
        if idist.get_rank() == 0:
            index = {
                "metric": engine.state.key_metric_name,
                "better": "higher" if higher else "lower",
                "class_names": self.class_names,
                "colors": self.colors,
                "examples": entries,
            }
            write_json(self.folder / "index.json", index)
        self._kept = []

    def _draw(self, owner: tuple[int, int], files: dict[str, str]) -> None:
        """Write the pictures of a case, in the process that keeps it."""
        rank, index = owner
        if rank != idist.get_rank():
            return
        picture, label, pred = self._kept[index].panels(self.size_px)
        line_px = max(1, round(self.size_px / 256))
        outlined = [overlay(picture, m, alpha=0.0, colors=self.colors, line_px=line_px) for m in (label, pred)]
        for name, shown in zip(files.values(), (picture, *outlined), strict=True):
            with atomic(self.folder / name) as temporary:
                Image.fromarray(shown).save(temporary, format="JPEG", quality=88, subsampling=0)


def choose(order: Sequence[int], count: int) -> list[tuple[str, int, int]]:
    """Pick the first, middle and last places of a ranking, none of them twice.

    Args:
        order: places from the worst to the best.
        count: how many of each group, 1 or more; fewer where there are not three times as many.

    Returns:
        (group, number from 1, place), each group beginning with its extreme; below three places no median.

    Example:
        >>> choose([7, 3, 5, 9], count=3)
        [('worst', 1, 7), ('median', 1, 3), ('best', 1, 9)]
    """
    size = min(count, len(order) // 3)
    if size == 0:
        groups = {"worst": order[:1], "best": order[1:]}
    else:
        middle = (len(order) - size) // 2
        groups = {"worst": order[:size], "median": order[middle : middle + size], "best": order[: -size - 1 : -1]}
    return [(group, number, place) for group, places in groups.items() for number, place in enumerate(places, 1)]
