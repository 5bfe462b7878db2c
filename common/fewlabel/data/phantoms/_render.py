# SPDX-License-Identifier: Apache-2.0
"""Light tissue and tools as an endoscope sees them: headlight, glare, shadows, smoke, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabel.data.phantoms._noise import Field, blur, mix, resize, smoothstep
from fewlabel.data.phantoms._tissue import Canvas
from fewlabel.data.phantoms._tools import Part

BLOOD = np.array([0.22, 0.015, 0.02], np.float32)


def view(canvas: Canvas, size: tuple[int, int], shift: tuple[float, float], angle: float, zoom: float) -> Field:
    """Return the part of a canvas that the camera sees.

    Args:
        canvas: painted tissue.
        size: height and width of the frame in pixels.
        shift: camera position (y, x) on the canvas in frame heights, 0 in its middle.
        angle: roll of the camera in radians.
        zoom: magnification.

    Returns:
        Shape ``(H, W, 5)``, the layers of the canvas.
    """
    rows, columns = canvas.layers.shape[:2]
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    x0 = columns / 2 + shift[1] * canvas.scale - cos * size[1] / 2 + sin * size[0] / 2
    y0 = rows / 2 + shift[0] * canvas.scale - sin * size[1] / 2 - cos * size[0] / 2
    affine = (cos, -sin, x0, sin, cos, y0)
    planes = [
        Image.fromarray(canvas.layers[..., k]).transform(
            (size[1], size[0]), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )
        for k in range(canvas.layers.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def light_tissue(layers: Field, x: Field, y: Field, lamp: tuple[float, float, float]) -> Field:
    """Shade tissue with a lamp beside the lens: diffuse light by its slope, glare where it mirrors the lamp.

    Args:
        layers: from :func:`view`.
        x: horizontal pixel positions in frame heights, 0 in the middle.
        y: vertical pixel positions, downward.
        lamp: position of the lamp (x, y, distance) in frame heights.

    Returns:
        Shape ``(H, W, 3)``, linear light, about 0..1 with glare above.
    """
    slope_y, slope_x = np.gradient(layers[..., 3], np.float32(1 / layers.shape[0]))
    lx, ly, lz = lamp[0] - x, lamp[1] - y, np.float32(lamp[2])
    far = np.sqrt(lx * lx + ly * ly + lz * lz)
    steep = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    diffuse = np.clip((lz - slope_x * lx - slope_y * ly) / (far * steep), 0, 1)
    hx, hy, hz = lx / far, ly / far, lz / far + 1  # halfway between the lamp and the lens
    mirror = (hz - slope_x * hx - slope_y * hy) / (np.sqrt(hx * hx + hy * hy + hz * hz) * steep)
    sheen = _squared(np.clip(mirror, 0, 1), 5)
    glare = layers[..., 4] * (1.6 * _squared(sheen, 3) + 0.12 * sheen)
    fall = np.float32(1.25) / (1 + 0.9 * (lx * lx + ly * ly))
    return layers[..., :3] * (0.18 + 0.92 * diffuse * fall)[..., None] + (glare * fall)[..., None]


def _squared(field: Field, times: int) -> Field:
    """Return the power ``2^times``, by repeated squaring."""
    for _ in range(times):
        field = field * field
    return field


def surroundings(scene: Field) -> Field:
    """Return what metal mirrors: the scene, strongly blurred and flipped."""
    small = np.asarray(scene[::8, ::8])[::-1, ::-1]
    planes = [resize(np.ascontiguousarray(small[..., k]), scene.shape[:2]) for k in range(3)]
    return np.stack(planes, -1)


def coverage(part: Part, height: int) -> Field:
    """Return the share of each pixel that a piece covers, 0..1."""
    return np.clip(0.5 - part.distance * np.float32(height), 0, 1)


def light_part(
    part: Part, x: Field, y: Field, lamp: tuple[float, float, float], mirrored: Field, noise: tuple[Field, Field]
) -> Field:
    """Shade one piece of a tool as a cylinder of brushed metal or plastic.

    Args:
        part: the piece.
        x: horizontal pixel positions in frame heights.
        y: vertical pixel positions.
        lamp: position of the lamp.
        mirrored: from :func:`surroundings`.
        noise: two fields about standard normal, for scratches and for stains.

    Returns:
        Shape ``(H, W, 3)``, linear light; meaningful inside the piece.
    """
    tilt = np.clip(part.across, -1, 1) * np.float32(0.95)
    up = np.sqrt(1 - tilt * tilt)
    nx, ny = -part.axis[1] * tilt, part.axis[0] * tilt
    lx, ly, lz = lamp[0] - x, lamp[1] - y, np.float32(0.6 * lamp[2])
    length = np.sqrt(lx * lx + ly * ly + lz * lz)
    diffuse = np.clip((nx * lx + ny * ly + up * lz) / length, 0, 1)
    hx, hy, hz = lx / length, ly / length, lz / length + 1
    # a cylinder mirrors the lamp along a line: only the component across the axis counts
    across = -hx * part.axis[1] + hy * part.axis[0]
    mirror = np.clip((tilt * across + up * hz) / np.sqrt(across * across + hz * hz), 0, 1)
    rough = 1 + 0.25 * noise[0]
    fall = np.float32(1.15) / (1 + 0.6 * (np.square(x - lamp[0]) + np.square(y - lamp[1])))
    sheen = _squared(mirror, 4)
    glare = (0.3 + 0.7 * part.metal) * (0.75 * _squared(sheen, 3) * rough + 0.10 * sheen)
    edge = np.float32(part.metal) * (0.30 + 0.5 * (1 - up))
    direct = 0.04 + 0.68 * diffuse**1.5 * fall * (1 + 0.08 * noise[0])
    color = part.color * (direct[..., None] + 0.45 * mirrored)  # red light comes back from the tissue
    color = mix(color, mirrored, edge) + (glare * fall)[..., None]
    return mix(color, BLOOD * (0.3 + diffuse)[..., None], 0.85 * smoothstep(0.9, 1.7, noise[1]))


def cast_shadow(scene: Field, cover: Field, toward: tuple[float, float], depth: float) -> Field:
    """Darken tissue where a tool keeps the lamp's light away: its outline, moved and blurred."""
    height = scene.shape[0]
    moved = np.roll(cover, (round(toward[1] * height), round(toward[0] * height)), axis=(0, 1))
    return scene * (1 - np.float32(depth) * blur(moved, 0.035 * height))[..., None]


def add_smoke(scene: Field, cloud: Field, strength: float) -> Field:
    """Lay smoke over everything: it whitens and takes contrast away."""
    weight = np.float32(strength) * smoothstep(-1.2, 1.6, cloud)
    return mix(scene, np.array([0.66, 0.65, 0.68], np.float32), weight)


def lens(scene: Field, x: Field, y: Field, vignette: float) -> Field:
    """Add bloom around glare and the darkening of the corners."""
    bloom = blur(np.clip(scene - np.float32(0.85), 0, 1.5), 0.025 * scene.shape[0])
    dark = 1 - np.float32(vignette) * np.clip(np.hypot(x, y) / np.hypot(x[0, 0], y[0, 0]), 0, 1) ** np.float32(2.2)
    return (scene + 0.6 * bloom) * dark[..., None]


def motion_blur(scene: Field, motion_px: tuple[float, float]) -> Field:
    """Average the scene along a straight motion (x, y) in pixels."""
    steps = int(max(2, np.ceil(np.hypot(*motion_px))))
    total = np.zeros_like(scene)
    for t in np.linspace(-0.5, 0.5, steps):
        total += np.roll(scene, (round(t * motion_px[1]), round(t * motion_px[0])), axis=(0, 1))
    return total / np.float32(steps)


def sensor(scene: Field, rng: np.random.Generator, noise: float, gain: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 8-bit pixels: white balance, soft clipping, gamma, noise."""
    light = np.maximum(scene * gain, 0)
    bright = light > 0.8
    light[bright] = 0.8 + 0.2 * np.tanh(5 * (light[bright] - np.float32(0.8)))
    pixels = np.float32(255) * light ** np.float32(0.8)
    pixels += np.float32(255 * noise) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(pixels + np.float32(0.5), 0, 255).astype(np.uint8)
