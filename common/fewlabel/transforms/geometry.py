# SPDX-License-Identifier: Apache-2.0
"""Rotation, flips, shear, scaling and translation as one matrix and one sampling of image and mask."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import RandomizableTransform
from monai.utils import ensure_tuple_rep

from fewlabel.transforms._meta import like, plain
from fewlabel.transforms._random import SharedDrawd


def warp_matrix(
    rotate_first: float = 0.0,
    flip: tuple[bool, bool] = (False, False),
    shear: float = 0.0,
    rotate: float = 0.0,
    scale: float = 1.0,
    translate_px: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Return the affine map ``p -> A p + t`` of points in pixels about the image center (x right, y down).

    The steps in their order: rotate, flip, shear, rotate again, scale, translate: ``A = s R2 S F R1``. Because
    points are in pixels, a rotation stays one on pictures that are not square.

    Args:
        rotate_first: angle in degrees of the rotation before the flips, clockwise as seen.
        flip: whether to mirror vertically (top to bottom) and horizontally.
        shear: angle in degrees; the point ``(x, y)`` moves to ``(x - y tan(shear), y)``, as in torchvision.
        rotate: angle in degrees of the rotation after the shear, clockwise as seen.
        scale: magnification.
        translate_px: shift in pixels along y (down) and x (right).

    Returns:
        Shape ``(2, 3)``, float64: ``[A | t]`` with x before y.
    """
    mirror = np.diag([-1.0 if flip[1] else 1.0, -1.0 if flip[0] else 1.0])
    slant = np.array([[1.0, -math.tan(math.radians(shear))], [0.0, 1.0]])
    linear = scale * _rotation(rotate) @ slant @ mirror @ _rotation(rotate_first)
    return np.column_stack([linear, [translate_px[1], translate_px[0]]])


def _rotation(degrees: float) -> np.ndarray:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def warp(img: NdarrayOrTensor, matrix: np.ndarray, mode: str = "bilinear") -> NdarrayOrTensor:
    """Warp a picture or mask by the affine map of :func:`warp_matrix`; what comes from outside is 0.

    Args:
        img: shape ``(C, H, W)``, any real dtype.
        matrix: shape ``(2, 3)``, invertible.
        mode: ``bilinear`` for pictures, ``nearest`` for masks.

    Returns:
        The same shape, dtype and container.

    Raises:
        ValueError: an image that is not ``(C, H, W)``.
    """
    values = plain(img)
    if values.ndim != 3:
        raise ValueError(f"expected an image of shape (C, H, W), received {tuple(values.shape)}.")
    floats = values if values.is_floating_point() else values.float()
    grid = _sampling_grid(matrix, values.shape[-2], values.shape[-1]).to(floats)
    out = F.grid_sample(floats[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]
    return like(out.to(values.dtype), img)


def _sampling_grid(matrix: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Return where each output pixel comes from, (H, W, 2), in the units of ``grid_sample``: the frame is [-1, 1]."""
    half = np.array([width / 2, height / 2])
    back = np.linalg.inv(matrix[:, :2])
    (xx, xy, x0), (yx, yy, y0) = np.column_stack([back * half, -back @ matrix[:, 2]]) / half[:, None]
    x = (2 * torch.arange(width) + 1).div(width).sub_(1)[None, :]
    y = (2 * torch.arange(height) + 1).div(height).sub_(1)[:, None]
    return torch.stack([x * xx + (y * xy + x0), x * yx + (y * yy + y0)], dim=-1)


class RandWarp(RandomizableTransform):
    """Warp by one random affine map that composes the geometric steps of the MMS paper.

    The paper rotates by up to 90 degrees, flips, then rotates again with translation and shear, and resamples after
    each step. We multiply the matrices and sample once: sharper, faster, and content that an intermediate step would
    have pushed out of the frame and back is kept instead of lost. Outside is 0, in image and mask.

    Note:
        Meant for training: the step is not recorded for ``Invertd``.
    """

    def __init__(
        self,
        rotate_first: float = 90.0,
        flip: tuple[float, float] = (0.5, 0.5),
        shear: float = 30.0,
        rotate: float = 90.0,
        scale: tuple[float, float] = (1.0, 1.0),
        translate: tuple[float, float] = (0.5, 0.5),
        prob: float = 1.0,
    ) -> None:
        """Set the ranges; the defaults are the paper's.

        Args:
            rotate_first: largest angle of the first rotation in degrees, drawn from ``[-a, a]``.
            flip: probabilities of a vertical and of a horizontal flip.
            shear: largest angle of shear in degrees, drawn from ``[-a, a]``.
            rotate: largest angle of the second rotation in degrees.
            scale: lowest and highest magnification, drawn uniformly in its logarithm.
            translate: largest shift along y and x as a fraction of height and width.
            prob: probability of warping.
        """
        RandomizableTransform.__init__(self, prob)
        self.rotate_first, self.flip, self.shear, self.rotate = rotate_first, flip, shear, rotate
        self.scale, self.translate = scale, translate
        self._drawn: dict[str, Any] = {}
        self._shift = (0.0, 0.0)

    def randomize(self, data: object = None) -> None:
        """Draw whether to warp, and the map."""
        super().randomize(None)
        r = self.R
        self._drawn = {
            "rotate_first": r.uniform(-self.rotate_first, self.rotate_first),
            "flip": (r.uniform() < self.flip[0], r.uniform() < self.flip[1]),
            "shear": r.uniform(-self.shear, self.shear),
            "rotate": r.uniform(-self.rotate, self.rotate),
            "scale": math.exp(r.uniform(math.log(self.scale[0]), math.log(self.scale[1]))),
        }
        self._shift = (
            r.uniform(-self.translate[0], self.translate[0]),
            r.uniform(-self.translate[1], self.translate[1]),
        )

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True, mode: str = "bilinear") -> NdarrayOrTensor:
        """Warp one picture or mask.

        Args:
            img: shape ``(C, H, W)``.
            randomize: draw anew; False repeats the last draw.
            mode: ``bilinear`` or ``nearest``.

        Returns:
            The same shape, dtype and container; the input is left as it is.
        """
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        shift = (self._shift[0] * img.shape[-2], self._shift[1] * img.shape[-1])
        return warp(img, warp_matrix(translate_px=shift, **self._drawn), mode)


class RandWarpd(SharedDrawd):
    """Dictionary version of :class:`RandWarp`: one map for image and mask, each with its own interpolation."""

    def __init__(
        self,
        keys: KeysCollection,
        mode: str | Sequence[str] = "bilinear",
        rotate_first: float = 90.0,
        flip: tuple[float, float] = (0.5, 0.5),
        shear: float = 30.0,
        rotate: float = 90.0,
        scale: tuple[float, float] = (1.0, 1.0),
        translate: tuple[float, float] = (0.5, 0.5),
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set keys, interpolation and ranges.

        Args:
            keys: keys of pictures and masks, all of one size.
            mode: ``bilinear`` or ``nearest``, one for all keys or one per key.
            rotate_first: see :class:`RandWarp`.
            flip: see :class:`RandWarp`.
            shear: see :class:`RandWarp`.
            rotate: see :class:`RandWarp`.
            scale: see :class:`RandWarp`.
            translate: see :class:`RandWarp`.
            prob: see :class:`RandWarp`.
            allow_missing_keys: skip keys that an item lacks (an unlabeled item has no mask) instead of raising.
        """
        transform = RandWarp(rotate_first, flip, shear, rotate, scale, translate, prob)
        super().__init__(keys, transform, allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with every key warped by one map."""
        out = dict(data)
        self.randomize()
        for key, mode in self.key_iterator(out, self.mode):
            out[key] = self.transform(out[key], randomize=False, mode=mode)
        return out
