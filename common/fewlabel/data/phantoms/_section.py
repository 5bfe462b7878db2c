# SPDX-License-Identifier: Apache-2.0
"""Tissue between nuclei: collagen, cytoplasm, glands with a lumen, clefts, red blood cells. Lengths are in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import spatial

from fewlabel.data.phantoms._noise import Field, fractal, resize, smoothstep, value_noise
from fewlabel.data.phantoms._nuclei import KINDS, Crowd, outline


@dataclass(frozen=True)
class Pattern:
    """What a tissue is made of.

    Attributes:
        nests: share of the area that is epithelium or tumor.
        lumen: share of the nests' inside that is an empty lumen.
        tries: tumor, lymphocyte and spindle nuclei tried per square of 10 nuclear sizes; where no room is left, none is
            laid.
        clefts: how much of the stroma is torn open, 0..1.
        blood: largest number of groups of red blood cells.
    """

    nests: float
    lumen: float
    tries: tuple[float, float, float]
    clefts: float
    blood: int


PATTERNS = {
    "carcinoma": Pattern(0.62, 0.0, (75.0, 4.0, 6.0), 0.3, 1),
    "stroma": Pattern(0.10, 0.0, (40.0, 3.0, 11.0), 0.7, 2),
    "gland": Pattern(0.60, 0.45, (80.0, 3.0, 7.0), 0.4, 1),
    "infiltrate": Pattern(0.22, 0.0, (30.0, 45.0, 5.0), 0.2, 2),
}


@dataclass
class Section:
    """One tile of tissue before nuclei are laid.

    Attributes:
        flow: a field whose level lines are the collagen fibers.
        nest: share of epithelium, 0..1.
        lumen: share of emptiness, 0..1.
        crowding: about standard normal, where lymphocytes gather.
    """

    flow: Field
    nest: Field
    lumen: Field
    crowding: Field

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.flow.shape[0], self.flow.shape[1]


def lay_out(rng: np.random.Generator, size: tuple[int, int], pattern: Pattern, unit_px: float) -> Section:
    """Draw where epithelium, lumen and stroma are, and how the fibers run.

    Args:
        rng: source of the numbers.
        size: height and width.
        pattern: what the tissue is made of.
        unit_px: nuclear size of the slide.
    """
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    flow = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    flow = flow + np.float32(2.2 * unit_px) * fractal(rng, size, 11 * unit_px, 3, 0.38)
    hills = fractal(rng, size, 11 * unit_px, 3, 0.35)
    shore = float(np.quantile(hills, 1 - pattern.nests * rng.uniform(0.75, 1.2)))
    nest = smoothstep(shore - 0.06, shore + 0.06, hills)
    lumen = np.zeros(size, np.float32)
    if pattern.lumen:
        peak = float(np.quantile(hills, 1 - pattern.nests * pattern.lumen))
        ragged = hills + np.float32(0.05) * fractal(rng, size, 0.8 * unit_px, 2)
        lumen = smoothstep(peak - 0.04, peak + 0.04, ragged)
    return Section(flow, nest, lumen, fractal(rng, size, 7 * unit_px, 2))


def populate(
    rng: np.random.Generator, section: Section, pattern: Pattern, unit_px: float, markers: tuple[float, float] = (0, 0)
) -> Crowd:
    """Lay nuclei where their kind belongs: tumor in nests, spindles along the fibers, lymphocytes between.

    Args:
        rng: source of the numbers.
        section: from :func:`lay_out`.
        pattern: what the tissue is made of.
        unit_px: nuclear size of the slide.
        markers: share of tumor nuclei and of others that bind the marker, 0..1.

    Returns:
        The nuclei with their exact instances.
    """
    height, width = section.size
    crowd = Crowd.empty(rng, section.size, unit_px)
    slope_y, slope_x = (np.gradient(section.flow, axis=axis) for axis in (0, 1))
    area = (height + 2 * unit_px) * (width + 2 * unit_px) / (10 * unit_px) ** 2
    for (name, kind), tries in zip(KINDS.items(), pattern.tries, strict=True):
        centers = rng.uniform(-unit_px, (height + unit_px, width + unit_px), (int(area * tries), 2))
        for row, column in centers:
            y, x = int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))
            nest, crowding = float(section.nest[y, x]), float(section.crowding[y, x])
            gathered = 0.08 + (1 - 0.8 * nest) * (crowding > 0.3)
            chance = {"tumor": nest, "lymphocyte": gathered, "spindle": 1 - nest}[name]
            if rng.uniform() > chance or section.lumen[y, x] > 0.1 or crowd.labels[y, x]:
                continue
            along = float(np.arctan2(slope_x[y, x], -slope_y[y, x]))
            angle = along + rng.normal(0, 0.2) if name == "spindle" else rng.uniform(0, np.pi)
            nucleus = outline(rng, kind, (row, column), unit_px, angle, section.size)
            overlap = rng.choice([0.0, 0.03, 0.2], p=[0.6, 0.2, 0.2])
            if nucleus is None or not crowd.fits(nucleus, overlap):
                continue
            binds = rng.uniform() < markers[0 if name == "tumor" else 1]
            crowd.add(rng, nucleus, kind, unit_px, float(rng.uniform(0.5, 2.0)) if binds else None)
    return crowd


def tissue(rng: np.random.Generator, section: Section, crowd: Crowd, pattern: Pattern, unit_px: float) -> Field:
    """Stain everything but the nuclei.

    Args:
        rng: source of the numbers.
        section: from :func:`lay_out`.
        crowd: the nuclei, around which the cells of a nest are drawn.
        pattern: what the tissue is made of.
        unit_px: nuclear size of the slide.

    Returns:
        Shape ``(H, W, 3)``, densities of hematoxylin, eosin and blood.
    """
    size = section.size
    grain, cloud = fractal(rng, size, 4.5, 3, 0.8), fractal(rng, size, 3 * unit_px, 3)
    fiber, cleft = _collagen(rng, section, pattern, unit_px)
    stroma_e = np.clip(0.40 + 0.15 * fiber + 0.07 * cloud + 0.04 * grain, 0.05, None) * (1 - 0.9 * cleft)
    mucin = smoothstep(0.7, 2.0, fractal(rng, size, 4 * unit_px, 3))  # also takes hematoxylin, and is no nucleus
    stroma_h = np.clip(0.06 + 0.02 * cloud + 0.015 * fiber + 0.32 * mucin, 0.01, None) * (1 - 0.9 * cleft)
    border = _cell_borders(crowd, unit_px)
    cell_e = np.clip(0.36 + 0.10 * cloud + 0.05 * grain, 0.05, None) * (1 - 0.45 * border)
    cell_h = np.clip(0.24 + 0.10 * cloud + 0.05 * grain, 0.03, None) * (1 - 0.5 * border)
    full = 1 - np.float32(0.96) * section.lumen
    layers = np.zeros((*size, 3), np.float32)
    layers[..., 0] = (stroma_h + (cell_h - stroma_h) * section.nest) * full
    layers[..., 1] = (stroma_e + (cell_e - stroma_e) * section.nest) * full
    for _ in range(rng.integers(0, pattern.blood + 1)):
        _pool(rng, layers, section, unit_px)
    return layers


def _collagen(rng: np.random.Generator, section: Section, pattern: Pattern, unit_px: float) -> tuple[Field, Field]:
    """Return fibers, about standard normal, and clefts between bundles, 0..1."""
    size = section.size
    wave = section.flow + np.float32(0.25 * unit_px) * value_noise(rng, size, 1.6 * unit_px)
    low = float(wave.min())

    def stripes(period: float, drift: float) -> Field:
        """Noise that depends on the level line alone, but for a slow drift along it."""
        s = wave + np.float32(drift) * value_noise(rng, size, 3 * unit_px)
        table = rng.standard_normal(int((float(wave.max()) - low + 8 * drift) / period) + 8)
        return np.interp((s - low + 4 * drift) / period, np.arange(len(table)), table).astype(np.float32)

    fade = smoothstep(-1.2, 1.0, value_noise(rng, size, 2.5 * unit_px))
    fiber = 0.9 * fade * stripes(1.8, 2.0) + 0.7 * stripes(4.0, 4.0) + 0.3 * stripes(1.6 * unit_px, 5.0)
    gap = stripes(1.1 * unit_px, 6.0) + np.float32(0.7) * value_noise(rng, size, 4 * unit_px)
    return fiber, smoothstep(2.6 - 1.2 * pattern.clefts, 3.2 - 1.2 * pattern.clefts, gap)


def _cell_borders(crowd: Crowd, unit_px: float) -> Field:
    """Return 1 on the line between two cells, 0 a little away from it; cells are nearest to their nucleus."""
    size = crowd.labels.shape
    rows, columns = np.nonzero(crowd.labels)
    values = crowd.labels[rows, columns].astype(np.int64)
    count = np.maximum(np.bincount(values), 1)[1:]
    if len(count) < 2:
        return np.zeros(size, np.float32)
    centers = np.stack([np.bincount(values, weights=w)[1:] / count for w in (rows, columns)], 1)
    where = np.moveaxis(np.mgrid[0 : size[0] : 2, 0 : size[1] : 2], 0, -1)
    near = spatial.cKDTree(centers).query(where, k=2)[0].astype(np.float32)
    gap = resize(np.ascontiguousarray(near[..., 1] - near[..., 0]), (size[0], size[1]))
    return 1 - smoothstep(0.02 * unit_px, 0.22 * unit_px, gap)


def _pool(rng: np.random.Generator, layers: Field, section: Section, unit_px: float) -> None:
    """Scatter a group of red blood cells: disks with a pale middle, the same color as no nucleus."""
    height, width = section.size
    middle = rng.uniform(0, (height, width))
    y, x = np.ogrid[:height, :width]
    for _ in range(rng.integers(5, 26)):
        row, column = middle + rng.normal(0, 2.3 * unit_px, 2)
        if not (0 <= row < height and 0 <= column < width) or section.nest[int(row), int(column)] > 0.3:
            continue
        radius = np.float32(unit_px * rng.uniform(0.5, 0.62))
        squash = rng.uniform(0.75, 1.0)
        far: NDArray[np.float64] = np.hypot(y - row, (x - column) / squash)
        cover = np.clip(radius - far + 0.5, 0, 1).astype(np.float32)
        pale = 1 - 0.4 * np.exp(-np.square(far / (0.45 * radius)))
        layers[..., :2] *= 1 - 0.8 * cover[..., None]
        layers[..., 2] = layers[..., 2] * (1 - cover) + cover * (0.75 * pale).astype(np.float32)
