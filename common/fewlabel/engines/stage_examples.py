# SPDX-License-Identifier: Apache-2.0
"""``examples/stages/``: the same training images after every stage, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fewlabel.data.budget import Splits
from fewlabel.data.formats import files_of
from fewlabel.data.leaks import refuse_labels
from fewlabel.data.pseudo import pseudo_file
from fewlabel.files import atomic, write_json
from fewlabel.networks.weights import load_weights
from fewlabel.transforms import DetectionRules, InstanceRules, instances_from_logits
from fewlabel.transforms.overlay import COLORS, Picture, overlay

EDGE, SEED = COLORS[4], COLORS[0]
Labels = NDArray[np.int32]


class StageExamples:
    """Show what each stage made of a few training images, chosen at even steps of the list and not by any score.

    ``<n>_<panel>.jpg`` are written, and ``index.json``: ``{"class_names": [...] or null, "colors": [[r, g, b], ...],
    "examples": [{"case": ..., "files": {"image": ..., "map": ..., "mask": ..., "points": ..., "instances": ...}}]}``.
    Panels of stages that are not there are left out; nothing is written where only the image would be left.

    Args:
        output_dir: the folder above ``examples``.
        dataset: items with an ``image`` (3, H, W) in [0, 1], the list that the stages had.
        mask_folder: stage with ``map`` and ``mask``, see :class:`~fewlabel.engines.PseudoMaskWriter`.
        voronoi_folder: stage with ``voronoi``, see :class:`~fewlabel.engines.VoronoiWriter`; None has none.
        network: returns the final logits (1, K, H, W); None: there is no final network.
        ckpt_dir: folder of its weights.
        rules: see :func:`~fewlabel.transforms.instances_from_logits`.
        splits: whose labels must not be opened meanwhile; None guards none.
        class_names: with three or more, masks and instances have the colors of their classes; else instances differ
            in color from their neighbors.
        device: where the network runs.
        count: how many images; fewer where the list is short.
        size_px: longer side of the pictures; of larger images the center is shown.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Any,
        mask_folder: str | Path,
        voronoi_folder: str | Path | None = None,
        network: nn.Module | None = None,
        ckpt_dir: str | Path = "",
        rules: InstanceRules | DetectionRules | None = None,
        splits: Splits | None = None,
        class_names: Sequence[str] = ("background", "object"),
        device: torch.device | str = "cpu",
        count: int = 3,
        size_px: int = 384,
    ) -> None:
        self.folder = Path(output_dir) / "examples" / "stages"
        self.dataset, self.network, self.ckpt_dir = dataset, network, Path(ckpt_dir)
        self.mask_folder, self.voronoi_folder = Path(mask_folder), voronoi_folder
        self.rules, self.splits, self.device = rules, splits, device
        self.class_names = list(class_names) if len(class_names) > 2 else None
        self.count, self.size_px = count, size_px

    def run(self) -> None:
        """Write the pictures, in the first process only; those of an earlier run are replaced."""
        if idist.get_rank() != 0:
            return
        for old in [*self.folder.glob("*_*.jpg"), self.folder / "index.json"]:
            old.unlink(missing_ok=True)
        if self.network is not None:
            load_weights(self.network, self.ckpt_dir / "model.pt", key="ckpt_dir", strict=True)
            self.network.to(self.device).eval()
        items = self.dataset.data
        places = np.linspace(0, len(items) - 1, min(self.count, len(items))).round().astype(int)
        with refuse_labels(self.splits.held_back if self.splits else {}, [item["image"] for item in items]):
            examples = [self._write(number, int(place)) for number, place in enumerate(places, 1)]
        if any(len(example["files"]) > 1 for example in examples):
            about = {"class_names": self.class_names, "colors": COLORS}
            write_json(self.folder / "index.json", about | {"examples": examples})

    def _write(self, number: int, place: int) -> dict[str, Any]:
        item = self.dataset.data[place]
        image = self.dataset[place]["image"].as_subclass(Tensor)
        files = {}
        for panel, picture in self._panels(place, image).items():
            files[panel] = f"{number}_{panel}.jpg"
            with atomic(self.folder / files[panel]) as temporary:
                Image.fromarray(picture).save(temporary, format="JPEG", quality=88, subsampling=0)
        return {"case": Path(files_of(item["image"])[0]).name, "files": files}

    def _panels(self, place: int, image: Tensor) -> dict[str, Picture]:
        """Return the pictures of all stages that there are, in their order."""
        shown = self._window((255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy())
        found: dict[str, Picture] = {"image": shown}
        made = {"map": self.mask_folder, "mask": self.mask_folder, "voronoi": self.voronoi_folder}
        read = {kind: self._read(folder, place, kind) for kind, folder in made.items()}
        if (values := read["map"]) is not None:
            found["map"] = np.repeat(values[..., None], 3, axis=2).astype(np.uint8)
        if (mask := read["mask"]) is not None:
            found["mask"] = overlay(shown, mask, alpha=0.0, line_px=2)
        if (voronoi := read["voronoi"]) is not None:
            marked = np.select([voronoi == 1, voronoi == 0], [1, 2])
            found["points"] = overlay(shown, marked, alpha=1.0, colors=(SEED, EDGE), line_px=2)
        if self.network is not None:
            found["instances"] = overlay(shown, self._instances(image), alpha=0.0, line_px=2)
        return found

    @torch.no_grad()
    def _instances(self, image: Tensor) -> Labels:
        assert self.network is not None
        logits = self.network(image[None].to(self.device)).float()[0]
        labels, kinds, _ = instances_from_logits(logits, self.rules)
        if self.class_names is not None:
            labels = torch.cat([kinds.new_zeros(1), kinds])[labels.long()]
        return self._window(labels[0].int().numpy())

    def _read(self, folder: str | Path | None, place: int, kind: str) -> Labels | None:
        file = None if folder is None else pseudo_file(folder, place, self.dataset.data[place], kind)
        if file is None or not file.is_file():
            return None
        return self._window(np.asarray(Image.open(file)).astype(np.int32))

    def _window(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Cut out the center; enlarge what is smaller, pixels of labels by whole copies of themselves."""
        top, left = (max(0, (n - self.size_px) // 2) for n in picture.shape[:2])
        cut = picture[top : top + self.size_px, left : left + self.size_px]
        height, width = (max(1, round(n * self.size_px / max(cut.shape[:2]))) for n in cut.shape[:2])
        kind = Image.Resampling.LANCZOS if picture.ndim == 3 else Image.Resampling.NEAREST
        return np.asarray(Image.fromarray(cut).resize((width, height), kind))
