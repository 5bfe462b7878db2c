# SPDX-License-Identifier: Apache-2.0
"""Anatomy of an abdomen as signed distances in millimeters, painted into a volume of Hounsfield units.

Axes are left, posterior and superior of the patient; the origin is the middle of the body.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Vector = tuple[float, float, float]

LIVER, LEFT_KIDNEY, RIGHT_KIDNEY, SPLEEN = 1, 2, 3, 4
AIR, LUNG, FAT, WATER, MUSCLE, BONE = -1000.0, -840.0, -100.0, 5.0, 55.0, 420.0


class Canvas:
    """A volume that shapes are painted into, one over the other.

    Args:
        position: (3, X, Y, Z), where each voxel lies, in millimeters.
        blur_mm: width over which a border changes from one value to the other, which is partial volume.
    """

    def __init__(self, position: Volume, blur_mm: float) -> None:
        self.position, self.blur_mm = position, blur_mm
        self.values = np.full(position.shape[1:], AIR, np.float32)
        self.labels = np.zeros(position.shape[1:], np.uint8)

    def paint(self, distance: Volume, value: float | Volume, label: int = 0) -> None:
        """Paint a shape over what is there.

        Args:
            distance: signed distance to its surface in millimeters, negative inside.
            value: in Hounsfield units.
            label: of the voxels whose middle is inside.
        """
        cover = np.clip(np.float32(0.5) - distance / np.float32(self.blur_mm), 0, 1)
        self.values += cover * (value - self.values)
        self.labels[distance < 0] = label

    def ellipsoid(self, center: Vector, radii: Vector, turn: float = 0.0) -> Volume:
        """Return the signed distance to an ellipsoid, to first order.

        Args:
            center: in millimeters.
            radii: in millimeters; an infinite one makes a cylinder.
            turn: radians about the body's axis.
        """
        x, y, z = (self.position[axis] - np.float32(center[axis]) for axis in range(3))
        if turn:
            cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            x, y = cos * x + sin * y, cos * y - sin * x
        a, b, c = (np.float32(1 / r) for r in radii)
        near = np.sqrt((a * x) ** 2 + (b * y) ** 2 + (c * z) ** 2)
        steep = np.sqrt((a * a * x) ** 2 + (b * b * y) ** 2 + (c * c * z) ** 2)
        return near * (near - 1) / np.maximum(steep, np.float32(1e-6))


class Build(NamedTuple):
    """What sets one patient apart from another.

    Args:
        width: half of the body's width, in millimeters.
        depth: half of its depth.
        fat: thickness of the fat under the skin.
        uptake: how much contrast medium the organs hold, about 1.
    """

    width: float
    depth: float
    fat: float
    uptake: float


def draw_build(rng: np.random.Generator) -> Build:
    """Draw a patient."""
    width = float(rng.uniform(142, 166))
    return Build(width, width * float(rng.uniform(0.64, 0.74)), float(rng.uniform(7, 24)), float(rng.uniform(0.6, 1.3)))


def swell(rng: np.random.Generator, shape: tuple[int, int, int], steps: Vector, cell_mm: float) -> Volume:
    """Return smooth noise of a volume, standard normal.

    Args:
        rng: source of the numbers.
        shape: of the volume.
        steps: distance of voxels along each axis, in millimeters.
        cell_mm: size of its features.
    """
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), [cell_mm / s for s in steps], mode="wrap")
    return (noise - noise.mean()) / noise.std()


def paint_body(canvas: Canvas, build: Build, rng: np.random.Generator) -> None:
    """Paint couch, fat, muscle, cavity, lungs, spine and ribs."""
    x, y, z = canvas.position
    wide, deep, fat, _ = build
    couch = np.maximum(np.abs(y - (deep + 9) + x * x / 1400) - 4, np.abs(x) - 150)
    canvas.paint(couch, -250.0)
    canvas.paint(canvas.ellipsoid((0, 0, 0), (wide, deep, np.inf)), FAT)
    wall = canvas.ellipsoid((0, 0.2 * fat, 0), (wide - fat, deep - fat, np.inf))
    canvas.paint(wall, MUSCLE)
    canvas.paint(wall + 13, FAT + 8)
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 36, 0.62 * deep, 0), (30, 20, np.inf)), MUSCLE)
        canvas.paint(canvas.ellipsoid((side * 30, 0.36 * deep, -60), (17, 19, 75)), MUSCLE + 5)
        canvas.paint(canvas.ellipsoid((side * 0.5 * wide, 0.12 * deep, 92), (0.4 * wide, 0.62 * deep, 62)), LUNG)
    level = float(rng.uniform(0, 32))
    angle = np.arctan2(y / deep, x / wide)
    height = z + level - 34 * np.cos(angle - 0.5 * np.pi)  # ribs descend from the spine to the front
    rib = np.hypot(wall + 7, 0.7 * ((height % 32) - 16)) - 4.5
    canvas.paint(np.where((z > -45) & (y > -0.75 * deep), rib, 9), BONE)
    _paint_spine(canvas, deep, level)


def _paint_spine(canvas: Canvas, deep: float, level: float) -> None:
    z = canvas.position[2]
    disc = np.abs((z + level) % 32 - 16) - 4
    vertebra = canvas.ellipsoid((0, 0.45 * deep, 0), (23, 17, np.inf))
    canvas.paint(canvas.ellipsoid((0, 0.72 * deep, 0), (5, 0.2 * deep, np.inf)), 300.0)
    canvas.paint(vertebra, BONE)
    canvas.paint(vertebra + 4, 190.0)
    canvas.paint(np.maximum(vertebra, disc), 85.0)
    canvas.paint(canvas.ellipsoid((0, 0.45 * deep + 24, 0), (9, 8, np.inf)), 25.0)


class Layout:
    """Where organs lie in a patient, and how large they are: about the same in all, equal in none.

    Args:
        build: the patient.
        rng: source of the numbers.
    """

    def __init__(self, build: Build, rng: np.random.Generator) -> None:
        self.rng = rng
        self.half = (build.width - build.fat - 13, build.depth - build.fat - 13)
        self.scale = build.width / 155

    def place(self, x: float, y: float, z: float, spread_mm: float = 4.0) -> Vector:
        """Draw a point near one that is given by shares of the cavity's half widths and, along z, millimeters."""
        a, b, c = self.rng.normal((x * self.half[0], y * self.half[1], z), spread_mm)
        return float(a), float(b), float(c)

    def size(self, *radii: float) -> Vector:
        """Draw radii near those of a patient of usual width, in millimeters."""
        a, b, c = np.multiply(radii, self.rng.normal(1, 0.07, 3).clip(0.85, 1.15)) * self.scale
        return float(a), float(b), float(c)


def paint_organs(canvas: Canvas, build: Build, rng: np.random.Generator) -> None:
    """Paint vessels, stomach, bowel, gallbladder and, with labels, the four organs."""
    layout, uptake = Layout(build, rng), build.uptake
    place, size = layout.place, layout.size
    cavity = canvas.ellipsoid((0, 0.2 * build.fat, 0), (*layout.half, np.inf)) + 2
    canvas.paint(canvas.ellipsoid((11, 0.14 * build.depth, 0), (10, 10, np.inf)), 55 + 110 * uptake)
    canvas.paint(canvas.ellipsoid((-20, 0.16 * build.depth, 0), (12, 9, np.inf)), 50 + 70 * uptake)
    _paint_gut(canvas, layout, cavity)
    liver = _union(
        canvas.ellipsoid(place(-0.58, 0.0, 18), size(58, 70, 62), -0.15),
        canvas.ellipsoid(place(-0.08, -0.46, 32), size(62, 33, 34), 0.1),
    )
    canvas.paint(np.maximum(liver, cavity), 60 + 45 * uptake, LIVER)
    canvas.paint(canvas.ellipsoid(place(-0.42, -0.42, -18), size(17, 19, 24)), WATER)
    whole = canvas.ellipsoid(place(0.8, 0.4, 26), size(31, 44, 40), -0.5)
    hollow = canvas.ellipsoid(place(0.48, 0.2, 24, 2), size(28, 40, 46), -0.5)
    canvas.paint(np.maximum(np.maximum(whole, -hollow), cavity), 55 + 62 * uptake, SPLEEN)
    for label, side, height in ((LEFT_KIDNEY, 1, -14), (RIGHT_KIDNEY, -1, -28)):
        center = place(side * 0.5, 0.5, height)
        kidney = canvas.ellipsoid(center, size(26, 28, 44), side * 0.45)
        sinus = canvas.ellipsoid((center[0] - side * 19, center[1] - 6, center[2]), (17, 10, 15))
        canvas.paint(np.maximum(kidney - 6, cavity), FAT)
        canvas.paint(np.maximum(kidney, -sinus), 45 + 120 * uptake, label)


def _paint_gut(canvas: Canvas, layout: Layout, cavity: Volume) -> None:
    """Paint the stomach and loops of bowel, some with gas that lies on top."""
    y, rng = canvas.position[1], layout.rng
    for _ in range(14):
        center = layout.place(rng.uniform(-0.75, 0.75), rng.uniform(-0.8, 0.1), rng.uniform(-75, -5), 0)
        loop = canvas.ellipsoid(center, layout.size(22, 17, 20), rng.uniform(0, np.pi))
        canvas.paint(np.maximum(loop, cavity), rng.uniform(15, 60))
        if rng.uniform() < 0.35:
            canvas.paint(np.maximum(np.maximum(loop + 4, y - center[1]), cavity), AIR + 60)
    center = layout.place(0.42, -0.35, 28)
    stomach = np.maximum(canvas.ellipsoid(center, layout.size(46, 38, 34), 0.5), cavity)
    canvas.paint(stomach, 35.0)
    canvas.paint(np.maximum(stomach + 5, y - center[1] + 12), AIR + 60)


def _union(a: Volume, b: Volume, blend_mm: float = 14.0) -> Volume:
    """Return the distance to two shapes that flow into each other."""
    near = np.maximum(blend_mm - np.abs(a - b), 0) / np.float32(blend_mm)
    return np.minimum(a, b) - near * near * np.float32(blend_mm / 4)
