# SPDX-License-Identifier: Apache-2.0
"""Nuclei: outlines, chromatin, and a crowd of them in which some touch and overlap, with the exact instances."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewlabel.data.phantoms._noise import Field, fractal

Box = tuple[slice, slice]
_MIN_PX = 20  # a smaller piece at the border is left out
_KEPT = 0.72  # share of a nucleus that stays visible under others


@dataclass(frozen=True)
class Kind:
    """A kind of cell: ranges and amplitudes that its nuclei are drawn from.

    Attributes:
        radius: range of the mean radius in units of the slide's nuclear size.
        elongation: range of long over short axis.
        base: hematoxylin of the whole nucleus.
        rim: additional hematoxylin of the membrane.
        clumps: amplitude of chromatin clumps.
        nucleoli: largest number of nucleoli.
        ragged: amplitude of the outline's irregularity, relative to the radius.
        pale: share that is vesicular, with a light interior.
    """

    radius: tuple[float, float]
    elongation: tuple[float, float]
    base: float
    rim: float
    clumps: float
    nucleoli: int
    ragged: float
    pale: float


KINDS = {
    "tumor": Kind((0.85, 1.45), (1.0, 1.9), 0.66, 0.45, 0.40, 2, 0.05, 0.4),
    "lymphocyte": Kind((0.58, 0.74), (1.0, 1.2), 1.20, 0.15, 0.30, 0, 0.04, 0.08),
    "spindle": Kind((0.50, 0.85), (2.0, 4.6), 0.85, 0.32, 0.24, 0, 0.05, 0.25),
}


@dataclass
class Nucleus:
    """One outline on its patch.

    Attributes:
        box: rows and columns of the tile that the patch covers.
        inside: shape of the patch, where the nucleus is.
        depth: distance to the outline in pixels, positive inside.
    """

    box: Box
    inside: NDArray[np.bool_]
    depth: Field


def outline(
    rng: np.random.Generator,
    kind: Kind,
    center: tuple[float, float],
    unit_px: float,
    angle: float,
    size: tuple[int, int],
) -> Nucleus | None:
    """Draw the outline of a nucleus: an ellipse, bent when it is long, with a few harmonics.

    Args:
        rng: source of the numbers.
        kind: kind of cell.
        center: row and column; may lie a little outside.
        unit_px: nuclear size of the slide in pixels.
        angle: direction of the long axis in radians, counted from the columns' axis.
        size: height and width of the tile.

    Returns:
        The nucleus, or None where the tile holds too little of it.
    """
    elongation = rng.uniform(*kind.elongation)
    radius = unit_px * rng.uniform(*kind.radius)
    long, short = radius * elongation**0.5, radius / elongation**0.5
    waves = kind.ragged * rng.standard_normal((4, 2)) / np.sqrt(np.arange(1, 5))[:, None]
    bend = rng.normal(0, 0.05) * (elongation - 1)
    reach = int(np.ceil(1.3 * long)) + 4
    rows, columns = (
        slice(max(0, int(c) - reach), min(n, int(c) + reach + 1)) for c, n in zip(center, size, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    y, x = np.ogrid[rows, columns]
    y, x = y - center[0], x - center[1]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    v = v + bend * (u * u / long - 0.3 * long)
    turn = np.arctan2(v / short, u / long)
    edge = 1 + sum(a * np.cos(k * turn) + b * np.sin(k * turn) for k, (a, b) in enumerate(waves, 2))
    level = edge - np.hypot(u / long, v / short)
    inside = level > 0
    if np.count_nonzero(inside) < _MIN_PX or not _is_whole(inside):
        return None
    steep = np.hypot(*np.gradient(level))  # level over slope is the distance to first order
    return Nucleus((rows, columns), inside, (level / np.maximum(steep, 0.5 / long)).astype(np.float32))


def _is_whole(mask: NDArray[np.bool_]) -> bool:
    return int(ndimage.label(mask, np.ones((3, 3)))[1]) == 1


@dataclass
class Crowd:
    """Nuclei of a tile, later ones on top of earlier ones.

    Attributes:
        labels: shape ``(H, W)``, 0 outside, each nucleus its own value 1..N.
        density: shape ``(H, W, 2)``, hematoxylin and, where a marker is bound, DAB.
        cover: shape ``(H, W)``, share of the tissue that nuclei have displaced, 0..1.
        areas: pixels of each nucleus before others lay on it.
        visible: pixels of each nucleus that are left.
        positive: for each nucleus, whether the marker is bound.
        chromatin: two fields larger than the tile: fine clumps and coarse ones, about standard normal.
    """

    labels: NDArray[np.uint16]
    density: Field
    cover: Field
    chromatin: tuple[Field, Field]
    areas: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    positive: list[bool] = field(default_factory=list)

    @classmethod
    def empty(cls, rng: np.random.Generator, size: tuple[int, int], unit_px: float) -> Crowd:
        """Return a tile without nuclei; chromatin clumps are finer in smaller nuclei."""
        canvas = (size[0] + 128, size[1] + 128)
        chromatin = (fractal(rng, canvas, 0.32 * unit_px, 2), fractal(rng, canvas, 0.6 * unit_px, 2))
        zeros = np.zeros(size, np.float32)
        return cls(np.zeros(size, np.uint16), np.zeros((*size, 2), np.float32), zeros, chromatin)

    def fits(self, nucleus: Nucleus, overlap: float) -> bool:
        """Say whether a nucleus may lie there.

        Args:
            nucleus: the candidate, which would lie on top.
            overlap: largest share of the smaller partner that may be hidden.

        Returns:
            True when it hides little enough of each neighbor, and leaves each in one piece.
        """
        under = self.labels[nucleus.box]
        hidden = np.bincount(under[nucleus.inside])
        area = int(nucleus.inside.sum())
        for value in np.flatnonzero(hidden[1:]) + 1:
            left = (under == value) & ~nucleus.inside
            whole = self.areas[value - 1]
            too_much = hidden[value] > overlap * min(area, whole)
            if too_much or self.visible[value - 1] - hidden[value] < max(_MIN_PX, _KEPT * whole) or not _is_whole(left):
                return False
        return True

    def add(
        self, rng: np.random.Generator, nucleus: Nucleus, kind: Kind, unit_px: float, marker: float | None = None
    ) -> None:
        """Lay a nucleus on top: its value into the labels, its chromatin into the densities.

        Args:
            rng: source of the numbers.
            nucleus: outline.
            kind: kind of cell.
            unit_px: nuclear size of the slide in pixels.
            marker: amount of DAB bound to it; None for none.
        """
        stain = self._chromatin(rng, nucleus, kind, unit_px)
        soft = rng.choice([0.9, 1.3, 2.4], p=[0.55, 0.3, 0.15])  # not all are in focus
        cover = np.clip(nucleus.depth / np.float32(soft) + np.float32(0.5), 0, 1)
        amount = np.zeros((*stain.shape, 2), np.float32)
        amount[..., 0] = stain if marker is None else np.float32(0.35) * stain
        amount[..., 1] = 0 if marker is None else np.float32(marker) * (0.45 + 0.55 * stain)
        below = self.density[nucleus.box]
        # what lies below shines through: sections are thinner than two nuclei
        self.density[nucleus.box] = below * (1 - 0.6 * cover[..., None]) + amount * cover[..., None]
        self.cover[nucleus.box] = np.maximum(self.cover[nucleus.box], cover)
        hidden = np.bincount(self.labels[nucleus.box][nucleus.inside])
        for value in np.flatnonzero(hidden[1:]) + 1:
            self.visible[value - 1] -= int(hidden[value])
        self.areas.append(int(nucleus.inside.sum()))
        self.visible.append(self.areas[-1])
        self.positive.append(marker is not None)
        self.labels[nucleus.box][nucleus.inside] = len(self.areas)

    def _chromatin(self, rng: np.random.Generator, nucleus: Nucleus, kind: Kind, unit_px: float) -> Field:
        shape = nucleus.inside.shape
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(self.chromatin[0].shape, shape, strict=True))
        fine, coarse = (noise[top : top + shape[0], left : left + shape[1]] for noise in self.chromatin)
        is_pale = rng.uniform() < kind.pale
        base = kind.base * (rng.uniform(0.3, 0.5) if is_pale else rng.lognormal(0, 0.25))
        rim = kind.rim * (1.5 if is_pale else 1.0) * np.exp(-np.square((nucleus.depth - 0.8) / (0.13 * unit_px)))
        clumps = kind.clumps * (np.clip(coarse, -1, 2) * 0.55 + np.clip(fine, -1, 2) * 0.65)
        stain = base + rim + clumps * (0.7 if is_pale else 1.0)
        for _ in range(rng.integers(0, kind.nucleoli + 1)):
            stain = stain + _nucleolus(rng, nucleus, unit_px)
        return np.clip(stain, 0.08, None).astype(np.float32)


def _nucleolus(rng: np.random.Generator, nucleus: Nucleus, unit_px: float) -> Field:
    rows, columns = np.nonzero(nucleus.depth > 0.25 * nucleus.depth.max())
    pick = int(rng.integers(len(rows)))
    y, x = np.ogrid[: nucleus.depth.shape[0], : nucleus.depth.shape[1]]
    radius = unit_px * rng.uniform(0.12, 0.2)
    return 0.75 * np.exp(-((((y - rows[pick]) ** 2 + (x - columns[pick]) ** 2) / radius**2) ** 2))
