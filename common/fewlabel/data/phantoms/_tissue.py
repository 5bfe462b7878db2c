# SPDX-License-Identifier: Apache-2.0
"""The inside of an abdomen, painted once per video on a canvas larger than the frame. Lengths are in frame heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewlabel.data.phantoms._noise import Field, blur, cells, fractal, mix, smoothstep


@dataclass(frozen=True)
class Material:
    """A kind of tissue: color, gloss, and how strong its lobules, stripes and vessels are."""

    color: tuple[float, float, float]
    gloss: float
    lobules: float = 0.0
    stripes: float = 0.0
    vessels: float = 0.0


MATERIALS = {
    "fat": Material((0.88, 0.60, 0.24), 0.5, lobules=1.0, vessels=0.4),
    "pale fat": Material((0.86, 0.70, 0.46), 0.5, lobules=0.7, vessels=0.3),
    "peritoneum": Material((0.86, 0.52, 0.47), 0.7, vessels=1.0),
    "bowel": Material((0.80, 0.38, 0.36), 1.0, vessels=0.8),
    "muscle": Material((0.60, 0.17, 0.15), 0.6, stripes=1.0, vessels=0.3),
    "liver": Material((0.34, 0.11, 0.10), 1.0),
    "fascia": Material((0.80, 0.74, 0.72), 0.9, stripes=0.5, vessels=0.5),
    "membrane": Material((0.62, 0.47, 0.47), 0.9, vessels=0.8),
    "cavity": Material((0.13, 0.06, 0.055), 0.2),
}


@dataclass(frozen=True)
class Canvas:
    """Painted tissue.

    Attributes:
        layers: shape ``(H', W', 5)``, float32: red, green, blue reflectance in 0..1, height in frame heights, gloss
            in 0..1.
        scale: pixels per frame height.
    """

    layers: Field
    scale: float


def paint(rng: np.random.Generator, size: tuple[int, int], margin: float = 1.4) -> Canvas:
    """Paint a scene: a ground, bulging organs over it, vessels, perhaps blood.

    Args:
        rng: source of everything random.
        size: frame height and width in pixels.
        margin: size of the canvas relative to the frame.

    Returns:
        The canvas, shape ``round(margin * size)``.
    """
    shape = (round(margin * size[0]), round(margin * size[1]))
    painter = _Painter(rng, shape, float(size[0]))
    names = list(MATERIALS)
    painter.lay(MATERIALS[names[int(rng.integers(0, len(names) - 1))]], np.ones(shape, np.float32))
    for _ in range(int(rng.integers(3, 7))):
        painter.organ(MATERIALS[names[int(rng.choice(len(names), p=_FREQUENCY))]])
    if rng.uniform() < 0.45:
        painter.blood()
    return painter.finish()


_FREQUENCY = np.array([3, 2, 3, 3, 2, 2, 1.5, 1.5, 1.5]) / 19.5


class _Painter:
    """Layers under construction, and the random fields that all organs share (they are what costs time)."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], scale: float) -> None:
        self.rng, self.shape, self.scale = rng, shape, scale
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        self.y, self.x = (y - shape[0] / 2) / scale, (x - shape[1] / 2) / scale
        self.layers = np.zeros((*shape, 5), np.float32)
        self.bend = np.stack([fractal(rng, shape, 0.5 * scale, 4, 0.35) for _ in range(2)])
        self.mottle = fractal(rng, shape, 0.3 * scale, 6, 0.65)
        self.grain = fractal(rng, shape, 0.025 * scale, 3, 0.7)
        folds = 1 - np.sqrt(np.square(fractal(rng, shape, 0.45 * scale, 2)) + 0.04)
        self.relief = 0.010 * fractal(rng, shape, 0.2 * scale, 3, 0.45) + 0.02 * folds + 0.0005 * self.grain
        wobble = np.stack([fractal(rng, shape, 0.09 * scale, 2, 0.4) for _ in range(2)])
        near, gap = cells(rng, shape, rng.uniform(0.07, 0.15) * scale, 0.15 * wobble)
        self.lobes = np.sqrt(np.clip(1 - np.square(near), 0, 1)) * smoothstep(-0.5, 0.5, gap)
        self.creases = smoothstep(0.0, 0.3, gap)
        self.vessels = self._vessels()

    def lay(self, material: Material, weight: Field, height: Field | float = 0.0) -> None:
        """Cover what lies below with a material."""
        tint = self.rng.uniform((0.88, 0.85, 0.82), (1.08, 1.0, 1.02)).astype(np.float32)
        surface = np.array(material.color, np.float32) * tint * (1 + 0.09 * self.mottle + 0.03 * self.grain)[..., None]
        surface *= 1 + 0.06 * self.bend[0][..., None] * np.array([0.3, 1.0, 1.0], np.float32)
        if material.stripes:
            angle = self.rng.uniform(0, np.pi)
            across = (self.x + 0.1 * self.bend[0]) * np.cos(angle) + (self.y + 0.1 * self.bend[1]) * np.sin(angle)
            surface *= (1 + 0.10 * material.stripes * np.sin(across * self.rng.uniform(50, 90) + 3 * self.mottle))[
                ..., None
            ]
        if material.lobules:
            surface = mix(
                surface, surface * np.array([0.85, 0.6, 0.5], np.float32), 0.55 * material.lobules * (1 - self.creases)
            )
            height = height + 0.035 * material.lobules * self.lobes
        if material.vessels:
            surface = mix(surface, surface * np.array([0.72, 0.32, 0.36], np.float32), material.vessels * self.vessels)
        self.layers[..., :3] = mix(self.layers[..., :3], surface, weight)
        self.layers[..., 3] += weight * height
        self.layers[..., 4] = mix(self.layers[..., 4], np.float32(material.gloss), weight)

    def organ(self, material: Material) -> None:
        """Put one bulging, irregular patch somewhere, with a dark seam around it."""
        rng = self.rng
        half = 0.5 * np.array(self.shape) / self.scale
        center = rng.uniform(-half, half)
        axes, angle = np.exp(rng.uniform(np.log(0.22), np.log(0.75), 2)), rng.uniform(0, np.pi)
        x, y = self.x - center[1] + 0.09 * self.bend[0], self.y - center[0] + 0.09 * self.bend[1]
        u = (x * np.cos(angle) + y * np.sin(angle)) / axes[0]
        v = (y * np.cos(angle) - x * np.sin(angle)) / axes[1]
        inside = (1 - np.hypot(u, v)).astype(np.float32)
        seam = np.exp(-np.square(np.minimum(inside, 0) / 0.10)) * rng.uniform(0.35, 0.7)
        self.layers[..., :3] *= (1 - seam)[..., None]
        swell = rng.uniform(0.08, 0.3) * float(axes.min()) * (-1.0 if material.color[0] < 0.2 else 1.0)
        bulge = np.float32(swell) * np.sqrt(np.clip(inside, 0, 1) * (2 - np.clip(inside, 0, 1)))
        self.lay(material, smoothstep(-0.02, 0.06, inside), bulge)

    def blood(self) -> None:
        """Let some blood lie in the scene: dark, flat and shiny."""
        pool = fractal(self.rng, self.shape, 0.35 * self.scale, 5)
        weight = smoothstep(1.0, 1.5, pool) * np.float32(self.rng.uniform(0.6, 0.95))
        self.layers[..., :3] = mix(self.layers[..., :3], np.array([0.36, 0.025, 0.03], np.float32), weight)
        self.layers[..., 4] = np.maximum(self.layers[..., 4], weight)

    def finish(self) -> Canvas:
        """Return the canvas."""
        self.layers[..., 3] += self.relief
        self.layers[..., 4] *= 0.25 + smoothstep(-0.8, 1.6, self.mottle)  # some places are wetter
        self.layers[..., :3] = np.clip(self.layers[..., :3], 0.01, 1)
        return Canvas(self.layers, self.scale)

    def _vessels(self) -> Field:
        """Draw branching, winding lines of falling width."""
        sheet = Image.new("L", (self.shape[1], self.shape[0]), 0)
        draw, rng = ImageDraw.Draw(sheet), self.rng
        for _ in range(int(rng.integers(6, 14))):
            start, angle = rng.uniform((0, 0), (self.shape[1], self.shape[0])), rng.uniform(0, 2 * np.pi)
            self._branch(draw, start, angle, rng.uniform(0.008, 0.018) * self.scale, 3)
        return blur(np.asarray(sheet, np.float32) / np.float32(255), 0.003 * self.scale)

    def _branch(
        self, draw: ImageDraw.ImageDraw, at: NDArray[np.float64], angle: float, width: float, depth: int
    ) -> None:
        rng, step = self.rng, 0.02 * self.scale
        for _ in range(int(rng.integers(12, 30))):
            angle += rng.normal(0, 0.22)
            to = at + step * np.array([np.cos(angle), np.sin(angle)])
            draw.line([*at, *to], fill=int(190 + 20 * depth), width=max(1, round(width)))
            at, width = to, 0.975 * width
            if depth > 0 and rng.uniform() < 0.08:
                self._branch(draw, at, angle + rng.choice([-0.7, 0.7]), 0.7 * width, depth - 1)
