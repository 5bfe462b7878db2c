# SPDX-License-Identifier: Apache-2.0
"""``examples/stages/``: the same training images after every stage, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fewlabel.data.budget import Splits
from fewlabel.data.pseudo import pseudo_file
from fewlabel.engines.stage_pictures import Pictured, StagePictures
from fewlabel.networks.weights import load_weights
from fewlabel.transforms import DetectionRules, InstanceRules, instances_from_logits
from fewlabel.transforms.overlay import COLORS, Picture, overlay

EDGE, SEED = COLORS[4], COLORS[0]
Labels = NDArray[np.int32]


class StageExamples(StagePictures):
    """Show the stages of a method that finds objects: ``image``, ``map``, ``mask``, ``points``, ``instances``.

    Files and index: see :class:`~fewlabel.engines.stage_pictures.StagePictures`. Panels of stages that are not there
    are left out.

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
        super().__init__(output_dir, dataset, splits, class_names if len(class_names) > 2 else None, count)
        self.network, self.ckpt_dir = network, Path(ckpt_dir)
        self.mask_folder, self.voronoi_folder = Path(mask_folder), voronoi_folder
        self.rules, self.device, self.size_px = rules, device, size_px

    def pictures(self, places: Sequence[int]) -> Iterator[Pictured]:
        """Yield the pictures of some items.

        Args:
            places: in the data set.
        """
        if self.network is not None:
            load_weights(self.network, self.ckpt_dir / "model.pt", key="ckpt_dir", strict=True)
            self.network.to(self.device).eval()
        for place in places:
            yield Pictured(self._panels(place, self.dataset[place]["image"].as_subclass(Tensor)))

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
