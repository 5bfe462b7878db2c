# SPDX-License-Identifier: Apache-2.0
"""Light through a stained section: optical densities of the stains add up, the scanner turns them into pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewlabel.data.phantoms._noise import Field, blur

# Absorption of red, green and blue light, unit vectors. Hematoxylin and eosin as in the usual reference slide for
# Macenko et al., ISBI 2009; DAB as in Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001; the others by eye.
HEMATOXYLIN = (0.563, 0.720, 0.406)
BLUE_HEMATOXYLIN = (0.720, 0.590, 0.366)
EOSIN = (0.216, 0.801, 0.558)
DAB = (0.268, 0.570, 0.776)
BLOOD = (0.150, 0.760, 0.632)
GRAY = (0.610, 0.570, 0.550)


@dataclass(frozen=True)
class Scan:
    """How one slide was stained and scanned.

    Attributes:
        vectors: shape ``(S, 3)``, absorption of each stain, rows of length 1.
        strength: shape ``(S,)``, what the densities of each stain are multiplied by.
        white: shape ``(3,)``, light where there is no tissue, 0..1.
        blur_px: standard deviation of the lens blur in pixels.
        noise: standard deviation of the sensor noise, 0..1.
    """

    vectors: NDArray[np.float32]
    strength: NDArray[np.float32]
    white: NDArray[np.float32]
    blur_px: float
    noise: float


def draw_scan(rng: np.random.Generator, stains: tuple[tuple[float, ...], ...], spread: float, turn: float) -> Scan:
    """Draw how a slide was stained: other batches of stain, other minutes in the bath, another scanner.

    Args:
        rng: source of the numbers.
        stains: absorption of each stain.
        spread: standard deviation of the logarithm of the strengths.
        turn: standard deviation of each entry of the absorption vectors, which changes the hue.

    Returns:
        The slide's own stains and scanner.
    """
    vectors = np.asarray(stains) + rng.normal(0, turn, (len(stains), 3))
    vectors = np.clip(vectors, 0.02, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.exp(rng.normal(0, spread, len(stains)))
    white = rng.uniform(0.93, 0.97) + rng.normal(0, 0.008, 3)
    return Scan(
        vectors.astype(np.float32),
        strength.astype(np.float32),
        white.astype(np.float32),
        float(rng.uniform(0.55, 0.9)),
        float(rng.uniform(0.006, 0.014)),
    )


def scan(densities: Field, slide: Scan, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Send light through stained tissue: ``I = white exp(-densities strength vectors)`` (Beer-Lambert).

    Args:
        densities: shape ``(H, W, S)``, at least 0, natural logarithm.
        slide: stains and scanner.
        rng: source of the sensor noise.

    Returns:
        Shape ``(H, W, 3)``, RGB.
    """
    light = slide.white * np.exp(-(densities * slide.strength) @ slide.vectors)
    light = blur(light, slide.blur_px)  # the lens mixes light, not density
    light += np.float32(slide.noise) * rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(np.clip(255 * light + np.float32(0.5), 0, 255)).astype(np.uint8)
