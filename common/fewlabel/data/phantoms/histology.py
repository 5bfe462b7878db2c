# SPDX-License-Identifier: Apache-2.0
"""Tissue stained with hematoxylin and eosin, drawn from numbers alone, with every nucleus as its own value.

Nests of tumor cells, glands, collagen and infiltrates; nuclei that are dark, pale, long, blurred, that touch and
overlap; beside them red blood cells, mucin and strong eosin, so that neither color nor darkness alone tells nuclei.
Stains mix as absorbing dyes do, and each slide has its own. Everything is a function of ``(seed, slide, tile)``. The
pictures exist so that each command runs anywhere; no claim about a method rests on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.phantoms._section import PATTERNS, lay_out, populate, tissue
from fewlabel.data.phantoms._slides import Layers, write_slides
from fewlabel.data.phantoms._stain import BLOOD, EOSIN, HEMATOXYLIN, draw_scan, scan

VERSION = "1"
SIZE = (256, 256)


class HistologySlide:
    """One slide: a tissue, its stains and its scanner, any tile of which can be drawn."""

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
        self.pattern = PATTERNS[pattern or str(rng.choice(list(PATTERNS)))]
        self.unit_px = float(rng.uniform(9.0, 12.5))
        self.scan = draw_scan(rng, (HEMATOXYLIN, EOSIN, BLOOD), spread=0.22, turn=0.05)

    def tile(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Draw one tile.

        Args:
            index: number of the tile, at least 0.

        Returns:
            Image ``(H, W, 3)``, uint8, RGB, and instances ``(H, W)``, uint16: 0 background, nuclei 1..N without a gap,
            each in one piece.
        """
        rng = np.random.default_rng([*self.seed, 1, index])
        section = lay_out(rng, self.size, self.pattern, self.unit_px)
        crowd = populate(rng, section, self.pattern, self.unit_px)
        layers = tissue(rng, section, crowd, self.pattern, self.unit_px)
        layers *= (1 - crowd.cover)[..., None]
        layers[..., 0] += crowd.density[..., 0]
        layers[..., 1] += np.float32(0.22) * crowd.cover
        return scan(layers, self.scan, rng), crowd.labels


def write_dataset(
    folder: str | Path,
    slides: tuple[int, int, int] = (8, 2, 2),
    tiles: int = 3,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write tiles, uint16 instance maps and a Decathlon-style data list; nothing happens when they are there.

    Args:
        folder: where to; ``images``, ``labels`` and ``datalist.json`` are made in it.
        slides: number of slides for training, validation and test; no slide is in two lists. They take turns at the
            tissues of ``PATTERNS``.
        tiles: tiles of each slide; ``group`` of an item names its slide.
        seed: which draw, at least 0.
        size: height and width in pixels.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    identity: dict[str, Any] = {"name": "histology", "version": VERSION, "seed": seed}
    identity |= {"slides": list(slides), "tiles": tiles, "size": list(size)}
    names = list(PATTERNS)

    def draw(slide: int, tile: int) -> Layers:
        image, label = HistologySlide((seed, slide), names[slide % len(names)], size).tile(tile)
        return {"image": image, "label": label}

    return write_slides(folder, identity, _HEADER, draw)


_HEADER: dict[str, Any] = {
    "name": "Drawn histology",
    "description": "Procedural H&E tiles with exact nuclei; no patient, no microscope.",
    "licence": "CC0-1.0",
    "modality": {"0": "RGB H&E"},
    "labels": {"0": "background", "1..N": "one value per nucleus (uint16)"},
    "tensorImageSize": "2D",
}
