# SPDX-License-Identifier: Apache-2.0
"""Draw masks over pictures, and pictures beside each other. Arrays in, arrays out; no files.

The colors are those of Okabe and Ito, which people with any common color blindness tell apart, ordered so that the
first ones also stand out on red and yellow tissue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Color = tuple[int, int, int]
Picture = NDArray[np.uint8]

COLORS: tuple[Color, ...] = ((86, 180, 233), (0, 158, 115), (204, 121, 167), (0, 114, 178), (230, 159, 0), (213, 94, 0))
TRUTH_COLOR: Color = (240, 228, 66)


def overlay(
    image: Picture,
    mask: NDArray[np.integer] | NDArray[np.bool_],
    truth: NDArray[np.integer] | NDArray[np.bool_] | None = None,
    alpha: float = 0.35,
    colors: Sequence[Color] = COLORS,
    truth_color: Color = TRUTH_COLOR,
    line_px: int | None = None,
) -> Picture:
    """Tint a mask over a picture and draw its contour; a true mask gets a contour alone.

    Args:
        image: shape ``(H, W, 3)`` or ``(H, W)``, uint8.
        mask: shape ``(H, W)``, integer or bool; 0 is background, class k gets color k - 1 (repeating).
        truth: true mask of the same shape, or None.
        alpha: opacity of the tint in ``[0, 1]``; contours are opaque.
        colors: RGB of the classes.
        truth_color: RGB of the true contour.
        line_px: width of contours in pixels; None takes one pixel per 240 pixels of the shorter side.

    Returns:
        Shape ``(H, W, 3)``, uint8; a new array.

    Raises:
        ValueError: shapes that differ, or an image that is not uint8.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"expected a uint8 image (H, W) or (H, W, 3), received {image.dtype} {image.shape}.")
    for name, labels in (("mask", mask), ("truth", truth)):
        if labels is not None and labels.shape != image.shape[:2]:
            raise ValueError(f"expected a {name} of shape {image.shape[:2]}, received {labels.shape}.")
    out = (np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image).astype(np.float32)
    width = max(1, round(min(image.shape[:2]) / 240)) if line_px is None else line_px
    inside, palette = mask > 0, np.array(colors, np.float32)
    paint = palette[(mask.astype(np.int64) - 1) % len(palette)]
    out[inside] += alpha * (paint[inside] - out[inside])
    border = _contours(mask, width)
    out[border] = paint[border]
    if truth is not None:
        out[_contours(truth, width)] = truth_color
    return np.rint(out).astype(np.uint8)


def _contours(labels: NDArray[np.integer] | NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the bands of ``width`` pixels inside the border of every region; the frame of the picture is no border.

    All regions at once, so that a thousand nuclei cost what one tool costs: a pixel is in a band where another value
    lies within ``width`` steps of it.
    """
    steps = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), width)
    values = labels.astype(np.int64)
    least, most = (f(values, footprint=steps, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    return (values > 0) & (least != most)


def montage(
    images: Sequence[Picture],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    gap_px: int = 4,
    background: Color = (255, 255, 255),
) -> Picture:
    """Put pictures side by side in rows, with a line of text under each.

    Args:
        images: pictures of shape ``(H, W, 3)`` or ``(H, W)``, uint8, of any sizes; a cell is as large as the largest.
        columns: pictures in a row; None makes the sheet about square.
        captions: one text per picture, or None; a text too long for its cell is cut.
        gap_px: space between cells in pixels.
        background: RGB between the pictures.

    Returns:
        One sheet, shape ``(H', W', 3)``, uint8.

    Raises:
        ValueError: no pictures, or another number of captions.
    """
    if not images or (captions is not None and len(captions) != len(images)):
        raise ValueError(
            f"expected pictures and as many captions, received {len(images)} and {captions and len(captions)}."
        )
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    font_px = max(11, round(width / 22))
    text_px = round(1.5 * font_px) if captions is not None else 0
    rows = math.ceil(len(images) / columns)
    step_y, step_x = height + text_px + gap_px, width + gap_px
    sheet = Image.new("RGB", (columns * step_x + gap_px, rows * step_y + gap_px), background)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_px)
    ink = (0, 0, 0) if sum(background) > 382 else (255, 255, 255)
    for index, image in enumerate(images):
        x, y = gap_px + index % columns * step_x, gap_px + index // columns * step_y
        sheet.paste(Image.fromarray(image).convert("RGB"), (x, y))
        if captions is not None:
            draw.text((x, y + height + font_px // 5), _fit(captions[index], width, font), fill=ink, font=font)
    return np.asarray(sheet).copy()


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
