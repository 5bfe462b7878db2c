# SPDX-License-Identifier: Apache-2.0
"""Tissue stained for a nuclear marker such as Ki-67, drawn from numbers alone: brown nuclei bind it, blue ones do not.

The tissue is that of :mod:`fewlabel.data.phantoms.histology` under hematoxylin and DAB: positive nuclei from faint to
nearly black, a brown haze in some slides, a share of positive nuclei that differs from slide to slide. Everything is
a function of ``(seed, slide, tile)``. The pictures exist so that each command runs anywhere; no claim about a method
rests on them.

The truth is two maps: ``label`` gives each nucleus its own value, ``class_label`` each pixel of a nucleus the class 1
(positive) or 2 (negative), in the order of a network's outputs. Cells to detect are the centers of the instances. Both
keys name a label, so that an item that joins the unlabeled pool loses both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.phantoms._noise import fractal
from fewlabel.data.phantoms._section import PATTERNS, lay_out, populate, tissue
from fewlabel.data.phantoms._slides import Layers, write_slides
from fewlabel.data.phantoms._stain import BLUE_HEMATOXYLIN, DAB, GRAY, draw_scan, scan

VERSION = "1"
SIZE = (256, 256)
POSITIVE, NEGATIVE = 1, 2


class ImmunohistochemistrySlide:
    """One slide: a tissue, its stains, and how many of its nuclei bind the marker."""

    def __init__(self, seed: int | Sequence[int], pattern: str | None = None, size: tuple[int, int] = SIZE) -> None:
        """Draw what the tiles of a slide share.

        Args:
            seed: non-negative integer or integers.
            pattern: a key of ``PATTERNS``; None draws one.
            size: height and width of a tile in pixels.
        """
        self.seed = [seed] if isinstance(seed, int) else [int(s) for s in seed]
        self.size = size
        rng = np.random.default_rng([*self.seed, 0])
        # the third layer is DAB here, and blood is washed out of such sections
        self.pattern = replace(PATTERNS[pattern or str(rng.choice(list(PATTERNS)))], blood=0)
        self.unit_px = float(rng.uniform(9.0, 12.5))
        self.share = float(rng.beta(1.3, 1.7))
        self.haze = float(rng.uniform(0.02, 0.16))
        self.scan = draw_scan(rng, (BLUE_HEMATOXYLIN, GRAY, DAB), spread=0.16, turn=0.022)

    def tile(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]:
        """Draw one tile.

        Args:
            index: number of the tile, at least 0.

        Returns:
            Image ``(H, W, 3)``, uint8, RGB; instances ``(H, W)``, uint16: 0 background, nuclei 1..N without a gap, each
            in one piece; classes ``(H, W)``, uint8: 0 background, 1 positive, 2 negative.
        """
        rng = np.random.default_rng([*self.seed, 1, index])
        section = lay_out(rng, self.size, self.pattern, self.unit_px)
        crowd = populate(rng, section, self.pattern, self.unit_px, (self.share, 0.04))
        layers = tissue(rng, section, crowd, self.pattern, self.unit_px)
        layers *= np.array([0.45, 0.30, 1.0], np.float32)
        cloud = np.clip(1 + 0.5 * fractal(rng, self.size, 3 * self.unit_px, 4, 0.7), 0, None)
        layers[..., 2] = np.float32(self.haze) * cloud * (0.35 + 0.65 * section.nest) * (1 - section.lumen)
        layers *= (1 - crowd.cover)[..., None]
        layers[..., 0] += np.float32(0.8) * crowd.density[..., 0]
        layers[..., 2] += crowd.density[..., 1] + np.float32(0.5 * self.haze) * crowd.cover
        classes = np.array([0, *(POSITIVE if binds else NEGATIVE for binds in crowd.positive)], np.uint8)
        return scan(layers, self.scan, rng), crowd.labels, classes[crowd.labels]


def write_dataset(
    folder: str | Path,
    slides: tuple[int, int, int] = (8, 2, 2),
    tiles: int = 3,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write tiles, instance and class maps and a Decathlon-style data list; nothing happens when they are there.

    Args:
        folder: where to; ``images``, ``labels``, ``classes`` and ``datalist.json`` are made in it.
        slides: number of slides for training, validation and test; no slide is in two lists.
        tiles: tiles of each slide; ``group`` of an item names its slide.
        seed: which draw, at least 0.
        size: height and width in pixels.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    identity: dict[str, Any] = {"name": "immunohistochemistry", "version": VERSION, "seed": seed}
    identity |= {"slides": list(slides), "tiles": tiles, "size": list(size)}
    names = ("carcinoma", "gland", "carcinoma", "infiltrate")

    def draw(slide: int, tile: int) -> Layers:
        drawn = ImmunohistochemistrySlide((seed, slide), names[slide % len(names)], size).tile(tile)
        return dict(zip(("image", "label", "class_label"), drawn, strict=True))

    return write_slides(folder, identity, _HEADER, draw)


_HEADER: dict[str, Any] = {
    "name": "Drawn immunohistochemistry",
    "description": "Procedural Ki-67 tiles with exact nuclei and classes; no patient, no microscope.",
    "licence": "CC0-1.0",
    "modality": {"0": "RGB IHC"},
    "labels": {"0": "background", "1..N": "one value per nucleus (uint16)"},
    "class_labels": {"0": "background", "1": "positive", "2": "negative"},
    "tensorImageSize": "2D",
}
