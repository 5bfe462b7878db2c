# SPDX-License-Identifier: Apache-2.0
"""Endoscopic video with surgical tools, drawn from numbers alone, with exact masks.

Tissue (fat, bowel, liver, vessels, blood) bulges under a headlight; none, one or two jointed tools move over it;
glare lies on both, smoke and shadows between, so that neither color nor brightness tells a tool from tissue.
Everything is a function of ``(seed, video, frame)``. The pictures exist so that each command runs anywhere; no claim
about a method rests on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.phantoms._noise import Field, fractal
from fewlabel.data.phantoms._render import (
    add_smoke,
    cast_shadow,
    coverage,
    lens,
    light_part,
    light_tissue,
    motion_blur,
    sensor,
    surroundings,
    view,
)
from fewlabel.data.phantoms._tissue import paint
from fewlabel.data.phantoms._tools import Part, Tool
from fewlabel.data.phantoms._write import DATALIST, save_png, write_once

VERSION = "1"
SIZE = (240, 320)


class EndoscopyVideo:
    """One video: a scene, its tools and its camera, any frame of which can be drawn."""

    def __init__(self, seed: int | Sequence[int], size: tuple[int, int] = SIZE) -> None:
        """Build the scene.

        Args:
            seed: non-negative integer or integers.
            size: height and width of a frame in pixels.
        """
        self.seed = [seed] if isinstance(seed, int) else [int(s) for s in seed]
        self.size = size
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
        self.y = (y - np.float32((size[0] - 1) / 2)) / np.float32(size[0])
        self.x = (x - np.float32((size[1] - 1) / 2)) / np.float32(size[0])
        rng = self._rng(0)  # each part has its own numbers, so that tools and camera do not depend on the frame's size
        self.tools = [Tool(rng, size[1] / size[0]) for _ in range(int(rng.choice([1, 2], p=[0.6, 0.4])))]
        self._draw_camera(self._rng(1))
        self.canvas = paint(self._rng(2), size)
        rng = self._rng(3)
        self.scratches = fractal(rng, size, 0.03 * size[0], 3, 0.8)
        self.stains = fractal(rng, size, 0.12 * size[0], 4)
        self.cloud = fractal(rng, (size[0], 3 * size[1]), 0.5 * size[0], 3)

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *stream])

    def _draw_camera(self, rng: np.random.Generator) -> None:
        self.rates, self.phases = rng.uniform(0.06, 0.2, 5), rng.uniform(0, 2 * np.pi, 5)
        self.lamp = (float(rng.normal(0, 0.12)), float(rng.normal(0, 0.12)), float(rng.uniform(0.7, 1.1)))
        self.smoke = float(rng.uniform(0.15, 0.55)) if rng.uniform() < 0.4 else 0.0
        self.vignette = float(rng.uniform(0.3, 0.75))
        self.scope = float(rng.uniform(0.56, 0.66)) if rng.uniform() < 0.3 else 0.0
        self.gain = (rng.uniform(0.9, 1.25) * np.array([1.0, rng.uniform(0.9, 1.05), rng.uniform(0.82, 1.0)])).astype(
            np.float32
        )
        self.noise = float(rng.uniform(0.008, 0.022))
        self.shaky = rng.uniform() < 0.5

    def frame(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw one frame.

        Args:
            index: number of the frame; neighbors differ by a small motion.

        Returns:
            Image ``(H, W, 3)``, uint8, and mask ``(H, W)``, uint8: 0 tissue, 1 shaft, 2 tip.
        """
        rng = self._rng(4, index)
        sway = np.sin(self.rates * index + self.phases)
        layers = view(self.canvas, self.size, (0.09 * sway[0], 0.12 * sway[1]), 0.12 * sway[2], 1.02 + 0.08 * sway[3])
        scene = light_tissue(layers, self.x, self.y, self.lamp)
        mask = np.zeros(self.size, np.uint8)
        for tool in self.tools:
            scene = self._add_tool(scene, mask, tool, index)
        if self.smoke:
            drift = int(0.05 * self.size[0] * index) % (2 * self.size[1])
            scene = add_smoke(scene, self.cloud[:, drift : drift + self.size[1]], self.smoke * (0.6 + 0.4 * sway[4]))
        scene = lens(scene, self.x, self.y, self.vignette)
        if self.shaky and rng.uniform() < 0.4:
            angle, length = rng.uniform(0, np.pi), rng.uniform(0.008, 0.022) * self.size[0]
            scene = motion_blur(scene, (length * np.cos(angle), length * np.sin(angle)))
        image = sensor(scene, rng, self.noise, self.gain)
        if self.scope:
            outside = np.hypot(self.x, self.y) > self.scope * self.size[1] / self.size[0] * 0.94
            image[outside], mask[outside] = rng.integers(0, 6, (int(outside.sum()), 3), dtype=np.uint8), 0
        return image, mask

    def _add_tool(self, scene: Field, mask: NDArray[np.uint8], tool: Tool, index: int) -> Field:
        """Draw a tool into the scene and, in place, into the mask."""
        parts = tool.parts(self.x, self.y, tool.pose(index))
        if not any((part.distance < 0).any() for part in parts):
            return scene
        height = self.size[0]
        covers = [coverage(part, height) for part in parts]
        toward = (0.06 - 0.12 * self.lamp[0], 0.07 - 0.12 * self.lamp[1])
        scene = cast_shadow(scene, np.maximum.reduce(covers), toward, 0.45)
        mirrored = surroundings(scene)
        for part, cover in zip(parts, covers, strict=True):
            rows, columns = np.nonzero(cover.any(1))[0], np.nonzero(cover.any(0))[0]
            if not len(rows):
                continue
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            piece = part.cut(box)
            lit = light_part(piece, self.x[box], self.y[box], self.lamp, mirrored[box], self._surface(piece, tool))
            scene[box] += (lit - scene[box]) * cover[box][..., None]
            mask[part.distance < 0] = part.label
        return scene

    def _surface(self, part: Part, tool: Tool) -> tuple[Field, Field]:
        """Return scratches and stains, fixed to the piece: noise read at its own coordinates."""
        height, width = self.size
        u = (part.along * np.float32(height) + tool.seed % 997).astype(np.int64)
        v = ((part.across + 1) * np.float32(0.12 * height)).astype(np.int64)
        rows, columns = v % height, u % width
        return self.scratches[columns % height, rows // 4], self.stains[rows, columns] - (0 if tool.bloody else 9)


def endoscopy_frame(
    index: int, seed: int = 0, size: tuple[int, int] = SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one frame, each index with a scene of its own.

    Args:
        index: which frame, at least 0.
        seed: which series of frames, at least 0.
        size: height and width in pixels.

    Returns:
        Image ``(H, W, 3)``, uint8, and mask ``(H, W)``, uint8: 0 tissue, 1 shaft, 2 tip.
    """
    return EndoscopyVideo((seed, index), size).frame(0)


def write_dataset(
    folder: str | Path,
    videos: tuple[int, int, int] = (6, 1, 2),
    frames: tuple[int, int, int] = (12, 12, 8),
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    stride: int = 2,
) -> Path:
    """Write videos as PNG pictures and masks with a Decathlon-style data list; nothing happens when they are there.

    Args:
        folder: where to; ``images``, ``labels`` and ``datalist.json`` are made in it.
        videos: number of videos for training, validation and test; no video is in two lists.
        frames: frames of each video in the three lists.
        seed: which draw, at least 0.
        size: height and width in pixels.
        stride: only every so-many-th frame of a video is kept, so that neighbors differ visibly.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    identity: dict[str, Any] = {"name": "endoscopy", "version": VERSION, "seed": seed}
    identity |= {"videos": list(videos), "frames": list(frames), "size": list(size), "stride": stride}

    def write(draft: Path) -> None:
        lists: dict[str, list[dict[str, str]]] = {}
        start = 0
        for name, count, length in zip(("training", "validation", "test"), videos, frames, strict=True):
            lists[name] = [
                item
                for video in range(start, start + count)
                for item in _write_video(draft, EndoscopyVideo((seed, video), size), video, length, stride)
            ]
            start += count
        (draft / DATALIST).write_text(json.dumps(_HEADER | lists | {"phantom": identity}, indent=1) + "\n")

    return write_once(folder, identity, write)


_HEADER: dict[str, Any] = {
    "name": "Drawn endoscopy",
    "description": "Procedural frames with surgical tools and exact masks; no patient, no camera.",
    "licence": "CC0-1.0",
    "modality": {"0": "RGB endoscopy"},
    "labels": {"0": "background", "1": "instrument shaft", "2": "instrument tip"},
    "tensorImageSize": "2D",
}


def _write_video(folder: Path, video: EndoscopyVideo, number: int, length: int, stride: int) -> list[dict[str, str]]:
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    items = []
    for index in range(length):
        stem = f"video{number:02d}_{index * stride:04d}.png"
        image, mask = video.frame(index * stride)
        save_png(folder / "images" / stem, image)
        save_png(folder / "labels" / stem, mask)
        items.append({"image": f"images/{stem}", "label": f"labels/{stem}", "video": f"video{number:02d}"})
    return items
