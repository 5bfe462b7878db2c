# SPDX-License-Identifier: Apache-2.0
"""GridMask: hide a rotated grid of square cells, so that a network must use what surrounds them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import RandomizableTransform

from fewlabel.transforms._meta import like, plain
from fewlabel.transforms._random import SharedDrawd


def grid_mask(
    size: tuple[int, int],
    period_px: float,
    ratio: float = 0.4,
    offset: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
) -> torch.Tensor:
    """Return the pixels that a grid of stripes keeps; the square cells between the stripes are False.

    In coordinates ``(u, v)`` rotated about the center, a pixel stays if ``u mod d < ratio d`` or ``v mod d < ratio d``,
    so that ``(1 - ratio)^2`` of the area is hidden: 36 % at the default.

    Args:
        size: height and width in pixels.
        period_px: d, distance between two stripes, in pixels.
        ratio: width of a stripe divided by d, in ``[0, 1]``.
        offset: shift of the grid along u and v, as a fraction of d.
        angle: rotation in degrees.

    Returns:
        Shape ``(H, W)``, bool.

    Raises:
        ValueError: a period that is not positive, or a ratio outside ``[0, 1]``.

    References:
        Chen et al., "GridMask Data Augmentation", arXiv 2001.04086, here as used (inverted) by MMS, arXiv 2203.15177.
        They round stripe and angle to integers; we do not, so that the hidden share is the same at any size.
    """
    if not (period_px > 0 and 0 <= ratio <= 1):
        raise ValueError(f"expected period_px > 0 and 0 <= ratio <= 1, received {period_px} and {ratio}.")
    y = (torch.arange(size[0]) - (size[0] - 1) / 2).div_(period_px)[:, None]
    x = (torch.arange(size[1]) - (size[1] - 1) / 2).div_(period_px)[None, :]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    u = (x * cos + (y * sin + offset[0])).remainder_(1.0)
    v = (y * cos + (x * -sin + offset[1])).remainder_(1.0)
    return torch.minimum(u, v) < ratio


class RandGridMask(RandomizableTransform):
    """Fill the square cells of a randomly placed grid with a color; see :func:`grid_mask`.

    The paper zeroes cells of the *normalized* image. Filling them with the mean color *before* normalization gives the
    same numbers, which is what ``fill`` is for.
    """

    def __init__(
        self,
        prob: float = 0.8,
        period: tuple[float, float] = (20, 80),
        ratio: float = 0.4,
        rotate: tuple[float, float] = (0, 90),
        fill: float | Sequence[float] = 0.0,
        reference_width: int | None = 512,
    ) -> None:
        """Set the ranges; the defaults are the paper's.

        Args:
            prob: probability of masking.
            period: lowest and (excluded) highest distance of stripes in pixels, drawn uniformly.
            ratio: width of a stripe divided by the period.
            rotate: lowest and highest angle in degrees.
            fill: value of hidden pixels, one number or one per channel.
            reference_width: image width in pixels that ``period`` refers to; for other widths it is scaled (ours: the
                paper has one size, 512 x 288). None takes ``period`` in pixels of the image as it comes.
        """
        RandomizableTransform.__init__(self, prob)
        self.period, self.ratio, self.rotate = period, ratio, rotate
        self.fill = torch.as_tensor(fill, dtype=torch.float32).reshape(-1, 1, 1)
        self.reference_width = reference_width
        self._drawn = (0.0, (0.0, 0.0), 0.0)

    def randomize(self, data: object = None) -> None:
        """Draw whether to mask, and the grid."""
        super().randomize(None)
        period, angle = self.R.uniform(*self.period), self.R.uniform(*self.rotate)
        self._drawn = (period, (self.R.uniform(), self.R.uniform()), angle)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Mask one picture.

        Args:
            img: shape ``(C, H, W)``, floating point.
            randomize: draw anew; False repeats the last draw.

        Returns:
            The same shape, dtype and container; the input is left as it is.
        """
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        values = plain(img)
        period, offset, angle = self._drawn
        scale = 1.0 if self.reference_width is None else values.shape[-1] / self.reference_width
        keep = grid_mask((values.shape[-2], values.shape[-1]), period * scale, self.ratio, offset, angle)
        return like(torch.where(keep.to(values.device), values, self.fill.to(values)), img)


class RandGridMaskd(SharedDrawd):
    """Dictionary version of :class:`RandGridMask`; all keys get the same grid."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.8,
        period: tuple[float, float] = (20, 80),
        ratio: float = 0.4,
        rotate: tuple[float, float] = (0, 90),
        fill: float | Sequence[float] = 0.0,
        reference_width: int | None = 512,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set keys and ranges.

        Args:
            keys: keys of the pictures.
            prob: see :class:`RandGridMask`.
            period: see :class:`RandGridMask`.
            ratio: see :class:`RandGridMask`.
            rotate: see :class:`RandGridMask`.
            fill: see :class:`RandGridMask`.
            reference_width: see :class:`RandGridMask`.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        super().__init__(keys, RandGridMask(prob, period, ratio, rotate, fill, reference_width), allow_missing_keys)
