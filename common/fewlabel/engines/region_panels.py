# SPDX-License-Identifier: Apache-2.0
"""Draw what pre-training on regions, and the fine-tuning after it, made of one slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from fewlabel.transforms.overlay import TRUTH_COLOR, Color, Picture, overlay
from fewlabel.transforms.save_overlay import slices_last

VIEWS: tuple[Color, Color] = (TRUTH_COLOR, (255, 255, 255))


@dataclass(frozen=True)
class ShownSlice:
    """One slice in the axes of the network, as maps (X, Y) of the box around the body there.

    Attributes:
        maps: ``image`` in [0, 1]; whole numbers ``regions``, -1 for none, ``chosen``, number from 1 of each region that
            was drawn, ``points``, 1 or 2 where a voxel of that view was drawn, ``frame``, 1 in the patch that was drawn
            from, ``result``, classes. All but ``image`` and ``regions`` may be missing.
        features: (F, X, Y) by panel, later their colors (3, X, Y).
        affine: of the volume; None for a picture.
        slice: which slice of the volume, counted from 0, and how many there are.
    """

    maps: dict[str, Tensor]
    features: dict[str, Tensor]
    affine: Tensor | None = None
    slice: tuple[int, int] | None = None

    def panels(self, size_px: int) -> dict[str, Picture]:
        """Return the pictures of all stages that there are, in their order.

        Args:
            size_px: longer side of the pictures.
        """
        gray = _colors(self._upright(self.maps["image"].expand(3, -1, -1)), size_px)
        found = {"image": gray}
        maps = {name: self._upright(m[None])[..., 0] for name, m in self.maps.items() if name != "image"}
        sized = {name: _labels(m, size_px) for name, m in maps.items()}
        if "chosen" in maps:
            found["superpixels"] = _outlined(gray, sized["regions"])
            tinted = overlay(gray, sized["chosen"], alpha=0.45, line_px=1)
            framed = overlay(tinted, sized["frame"], alpha=0.0, colors=VIEWS[1:], line_px=1)
            found["sampling"] = _dotted(framed, maps["points"])
        found |= {name: _colors(self._upright(colors), size_px) for name, colors in self.features.items()}
        if "result" in maps:
            found["result"] = overlay(gray, sized["result"], line_px=2)
        return found

    def _upright(self, maps: Tensor) -> NDArray[np.float32]:
        """Turn (C, X, Y) into (H, W, C)."""
        turned = slices_last(maps[..., None].float(), self.affine)
        flat = turned.select(1 + list(turned.shape[1:]).index(1), 0)
        return flat.permute(2, 1, 0).numpy()


def _labels(labels: NDArray[np.float32], size_px: int) -> NDArray[np.int32]:
    """Bring whole numbers (H, W) to the size of the pictures: pixels become copies of themselves."""
    picture = Image.fromarray(labels.astype(np.int32))
    return np.asarray(picture.resize(_size(labels.shape, size_px), Image.Resampling.NEAREST))


def _colors(colors: NDArray[np.float32], size_px: int) -> Picture:
    """Bring colors in [0, 1] (H, W, 3) to the size of the pictures."""
    picture = Image.fromarray(np.rint(255 * colors.clip(0, 1)).astype(np.uint8))
    return np.asarray(picture.resize(_size(colors.shape, size_px), Image.Resampling.BICUBIC))


def _size(shape: Sequence[int], size_px: int) -> tuple[int, int]:
    height, width = (max(1, round(n * size_px / max(shape[:2]))) for n in shape[:2])
    return width, height


def _outlined(picture: Picture, regions: NDArray[np.int32]) -> Picture:
    """Draw lines of one pixel between regions, half as wide as outlines on both sides: regions may be tiny."""
    border = np.zeros(regions.shape, bool)
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    border[1:] |= regions[1:] != regions[:-1]
    out = picture.copy()
    out[border] = VIEWS[0]
    return out


def _dotted(picture: Picture, points: NDArray[np.float32]) -> Picture:
    """Mark each voxel that was drawn by a disc in the color of its view."""
    sheet = Image.fromarray(picture)
    draw, scale = ImageDraw.Draw(sheet), sheet.height / points.shape[0]
    radius = min(max(1.0, 0.3 * scale), 3.0)
    for view, color in enumerate(VIEWS, 1):
        for row, column in np.argwhere(points == view):
            y, x = (row + 0.5) * scale, (column + 0.5) * scale
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(0, 0, 0))
    return np.asarray(sheet)
