# SPDX-License-Identifier: Apache-2.0
"""Jointed surgical tools: a shaft from outside the frame, a wrist, a tip with jaws. Lengths are in frame heights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fewlabel.data.phantoms._noise import Field, mix, smoothstep

SHAFT, TIP = 1, 2

SHAFTS = {  # reflectance, metallic share, how often
    "steel": ((0.62, 0.62, 0.63), 0.8, 3.0),
    "black": ((0.055, 0.055, 0.06), 0.15, 3.0),
    "gray": ((0.25, 0.27, 0.28), 0.3, 2.5),
    "white": ((0.72, 0.71, 0.69), 0.15, 1.5),
    "brown": ((0.30, 0.21, 0.17), 0.5, 1.0),
}
TIPS = ("grasper", "scissors", "driver", "hook", "sealer", "tube")


@dataclass(frozen=True)
class Part:
    """One rigid piece on the pixel grid.

    Attributes:
        distance: signed distance to the outline in frame heights, negative inside.
        across: position across the piece, -1 to 1 from edge to edge.
        along: position along the piece in frame heights.
        axis: unit vector (x, y) of the piece.
        label: 1 for shaft, 2 for tip.
        color: reflectance, one RGB or one per pixel.
        metal: how much it mirrors its surroundings, 0 to 1.
    """

    distance: Field
    across: Field
    along: Field
    axis: tuple[float, float]
    label: int
    color: Field
    metal: float

    def cut(self, box: tuple[slice, slice]) -> Part:
        """Return the piece on a part of the pixel grid."""
        color = self.color[box] if self.color.ndim == 3 else self.color
        return replace(self, color=color, distance=self.distance[box], across=self.across[box], along=self.along[box])


@dataclass(frozen=True)
class Pose:
    """Where a tool is in one frame: wrist (x, y), direction, bend of the wrist and opening of the jaws in radians."""

    wrist: tuple[float, float]
    angle: float
    bend: float
    opening: float


class Tool:
    """One tool of a video: fixed looks, and a smooth path as a function of time."""

    def __init__(self, rng: np.random.Generator, aspect: float) -> None:
        """Draw looks and path.

        Args:
            rng: source of everything random.
            aspect: width of the frame divided by its height.
        """
        weights = np.array([s[2] for s in SHAFTS.values()])
        name = str(rng.choice(list(SHAFTS), p=weights / weights.sum()))
        self.color, self.metal = np.array(SHAFTS[name][0], np.float32), SHAFTS[name][1]
        self.kind = str(rng.choice(TIPS))
        self.radius = float(np.exp(rng.uniform(np.log(0.03), np.log(0.075))))
        self.tip_color = np.full(3, 0.10 if self.kind == "sealer" else 0.42, np.float32)
        self.print = rng.uniform(40, 120, 3) if name in ("black", "white", "gray") and rng.uniform() < 0.5 else None
        self.bloody = rng.uniform() < 0.4
        self.taper = float(rng.uniform(0.1, 0.5))
        side = rng.uniform(0, 2 * np.pi)
        self.origin = np.array([0.72 * aspect * np.cos(side), 0.85 * np.sin(side)]) * rng.uniform(1.0, 1.25)
        self.home = rng.uniform((-0.22 * aspect, -0.22), (0.22 * aspect, 0.22))
        self.rates = rng.uniform(0.08, 0.24, (6, 2)) * np.array([1.0, 1.7])
        self.phases = rng.uniform(0, 2 * np.pi, (6, 2))
        self.leaves = rng.uniform() < 0.35
        self.seed = int(rng.integers(1 << 31))

    def _wave(self, which: int, time: float) -> float:
        return float(np.mean(np.sin(self.rates[which] * time + self.phases[which])))

    def pose(self, time: float) -> Pose:
        """Return the pose at a time in frames."""
        target = self.home + 0.22 * np.array([self._wave(0, time), self._wave(1, time)])
        reach = 1.0
        if self.leaves:  # now and then it is drawn back, out of sight
            reach -= 1.15 * float(smoothstep(0.1, 0.7, np.array(self._wave(2, time), np.float32)))
        target = self.origin + reach * (target - self.origin)
        x, y = target - self.origin if reach > 0 else self.home - self.origin
        jaw = {"scissors": 0.7, "grasper": 0.75, "driver": 0.5}.get(self.kind, 0.0)
        bend = 0.6 * self._wave(3, time) if self.kind in ("grasper", "driver", "scissors") else 0.0
        opening = jaw * (0.5 + 0.5 * self._wave(4, time))
        return Pose((float(target[0]), float(target[1])), float(np.arctan2(y, x)), bend, opening)

    def parts(self, x: Field, y: Field, pose: Pose) -> list[Part]:
        """Return the pieces in drawing order, the lowest first.

        Args:
            x: horizontal position of each pixel, 0 in the middle of the frame.
            y: vertical position, downward.
            pose: from :meth:`pose`.
        """
        r = self.radius
        grow = np.float32(self.taper)
        along, side, axis = _local(x, y, pose.wrist, pose.angle)
        half = r * (1 + grow * np.maximum(-along, 0))
        color = self._printed(along, side / half)
        shaft = Part(np.maximum(np.abs(side) - half, along), side / half, along, axis, SHAFT, color, self.metal)
        ring = np.maximum(np.abs(side) - 1.04 * half, np.maximum(along, -along - 1.3 * r))
        parts = [shaft, Part(ring, side / half, along, axis, SHAFT, np.full(3, 0.6, np.float32), 0.8)]
        wrist = pose.angle + pose.bend
        along, side, axis = _local(x, y, pose.wrist, wrist)
        length = {"tube": 2.2, "hook": 2.5, "sealer": 0.8}.get(self.kind, 1.7) * r
        half = r * np.interp(along, [-r, 0, length], [0.9, 0.9, 0.62]).astype(np.float32)
        body = np.maximum(np.abs(side) - half, np.maximum(along - length, -along - 0.6 * r))
        joint = (pose.wrist[0] + length * axis[0], pose.wrist[1] + length * axis[1])
        parts += [self._jaw(x, y, joint, wrist, pose.opening, sign) for sign in self._jaws()]
        return [*parts, Part(body, side / half, along, axis, TIP, self.tip_color, 0.85)]

    def _printed(self, along: Field, across: Field) -> Field:
        """Return the color of the shaft with something like a maker's name on it."""
        if self.print is None:
            return self.color
        a, b, c = self.print.astype(np.float32)
        letters = (np.sin(along * a) + np.sin(along * b + across * 2) + np.sin(across * 9 + along * c) > 0.4) & (
            np.abs(across - 0.1) < 0.4
        )
        letters &= (along < -0.12) & (along > -0.55)
        ink = np.float32(0.85 if self.color[0] < 0.4 else 0.1)
        return mix(np.broadcast_to(self.color, (*along.shape, 3)), np.full(3, ink), letters.astype(np.float32))

    def _jaws(self) -> tuple[int, ...]:
        return {"tube": (), "hook": (1,), "sealer": (1, -1)}.get(self.kind, (1, -1))

    def _jaw(self, x: Field, y: Field, joint: tuple[float, float], angle: float, opening: float, sign: int) -> Part:
        r = self.radius
        length, thick, thin, curve = {
            "grasper": (5.0, 0.42, 0.24, 0.03),
            "scissors": (4.5, 0.45, 0.07, 0.05),
            "driver": (3.0, 0.45, 0.28, 0.0),
            "hook": (3.2, 0.28, 0.2, 0.35),
            "sealer": (6.0, 0.5, 0.34, 0.02),
        }[self.kind]
        along, side, axis = _local(x, y, joint, angle + sign * 0.5 * opening)
        inside = np.clip(along, 0, None) / r
        side = side * sign - np.float32(r * (0.18 + curve * 0.1)) + np.float32(curve * r * 0.12) * inside**2
        half = r * np.interp(along / r, [0, length], [thick, thin]).astype(np.float32)
        end = np.float32(r * length)
        distance = np.maximum(np.abs(side), 0) - half
        beyond = np.maximum(along - end + half, np.float32(0.0))
        distance = np.where(beyond > 0, np.hypot(side, beyond) - half, distance)
        distance = np.maximum(distance, -along - np.float32(0.5 * r))
        return Part(distance, np.clip(side / half, -1, 1), along, axis, TIP, self.tip_color, 0.8)


def _local(x: Field, y: Field, origin: tuple[float, float], angle: float) -> tuple[Field, Field, tuple[float, float]]:
    """Return positions along and across an axis, and the axis."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    dx, dy = x - np.float32(origin[0]), y - np.float32(origin[1])
    return dx * np.float32(cos) + dy * np.float32(sin), dy * np.float32(cos) - dx * np.float32(sin), (cos, sin)
