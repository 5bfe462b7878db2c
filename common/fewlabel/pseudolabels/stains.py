# SPDX-License-Identifier: Apache-2.0
"""How much light stained tissue takes away, and how much of it each stain takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fewlabel.kernels.backend import full_precision

DARKEST = 1 / 255  # what an 8-bit picture can tell from black
# Absorption of red, green and blue by one unit of hematoxylin, eosin and diaminobenzidine (DAB).
VECTORS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "psm": ((0.650, 0.704, 0.286), (0.07, 0.99, 0.11), (0.268, 0.570, 0.776)),
    "ruifrok": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)),
}
Vectors = Literal["psm", "ruifrok"] | Sequence[Sequence[float]]


def optical_density(images: Tensor, darkest: float = DARKEST) -> Tensor:
    r"""Return the optical density of transmitted light, :math:`OD = -\log_{10} \max(I, I_{min})`, by Beer and Lambert.

    Densities of stains add up where intensities multiply; the mean over the channels says how dark a pixel is.

    Args:
        images: floating, relative to clear glass: 1 is no absorption; values above count as 1.
        darkest: I_min, > 0, which keeps the density finite.

    Returns:
        The same shape and type, in [0, -log10(darkest)].

    References:
        Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, Anal. Quant. Cytol.
        Histol. 23(4), 2001, eq. 1 and 2; they divide by the measured intensity of the glass, which is white here. PSM
        is silent about densities.

    Example:
        >>> optical_density(torch.tensor([1.0, 0.1, 0.01]))
        tensor([0., 1., 2.])
    """
    return images.clamp(darkest, 1).log10().neg().abs()  # abs: no negative zero


def stain_densities(images: Tensor, vectors: Vectors = "psm", darkest: float = DARKEST, clip: bool = True) -> Tensor:
    r"""Split optical densities into those of the stains, by color deconvolution.

    With the rows of M the absorption of red, green and blue by one unit of each stain:
    :math:`OD_{rgb} = s M`, so :math:`s = OD_{rgb} M^{-1}`.

    Args:
        images: (B, 3, *space), floating, RGB in [0, 1].
        vectors: M by name or as three rows of three numbers. ``"psm"`` are the vectors of hematoxylin, eosin and DAB
            in the authors' repository for counting; ``"ruifrok"`` those of scikit-image's ``rgb2hed``.
        darkest: see :func:`optical_density`.
        clip: set negative amounts to 0.

    Returns:
        (B, 3, *space): in this order for the named vectors: hematoxylin, eosin, DAB; float32 or as the images, in
        units of optical density. scikit-image's values are these with ``darkest=1e-6``, divided by 6.

    Raises:
        ValueError: images are not (B, 3, *space); vectors have no such name, shape, or inverse.

    References:
        Ruifrok and Johnston, 2001, eq. 3 to 7. The vectors are used as they are, without scaling to unit length.

    Example:
        >>> blue = torch.tensor([0.35, 0.32, 0.62]).view(1, 3, 1, 1)
        >>> [round(float(s), 2) for s in stain_densities(blue).flatten()]
        [0.7, 0.0, 0.01]
    """
    if images.ndim < 3 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images (B, 3, *space), got {tuple(images.shape)}")
    density = optical_density(images, darkest)
    wide = torch.promote_types(density.dtype, torch.float32)
    inverse = torch.linalg.inv(_matrix(vectors)).to(density.device, wide)
    with full_precision(images.device):
        stains = torch.einsum("bc...,cs->bs...", density.to(wide), inverse)
    return stains.clamp(min=0) if clip else stains


def _matrix(vectors: Vectors) -> Tensor:
    """Return the (3, 3) absorption of the stains, float64 on the CPU."""
    if isinstance(vectors, str):
        if vectors not in VECTORS:
            raise ValueError(f"vectors is {vectors!r}, expected one of {', '.join(map(repr, VECTORS))} or 3 rows of 3")
        return torch.tensor(VECTORS[vectors], dtype=torch.float64)
    matrix = torch.tensor([list(row) for row in vectors], dtype=torch.float64)
    if matrix.shape != (3, 3) or torch.linalg.matrix_rank(matrix) < 3:
        raise ValueError(f"vectors must be 3 independent rows of 3 numbers, got {vectors!r}")
    return matrix
