# SPDX-License-Identifier: Apache-2.0
"""Superpixels: the compiled form against scikit-image, one image and a batch, and a volume, which scikit-image lacks.

Scales are of the order that papers use on values in 0 ... 1. Images are free of ties (see ``_make``), so
``max_deviation`` must be 0: labels are the same. Both forms allocate through NumPy, which ``peak_mib`` does not see.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from skimage import data
from skimage.segmentation import felzenszwalb as scikit
from torch import Tensor
from torch.nn.functional import interpolate

from fewlabel.kernels.felzenszwalb import felzenszwalb
from tools.bench.case import Case, Implementation, Problem, Work

PARAMETERS = ((1, 1.0, 100), (100, 0.8, 50))  # scale, sigma, min_size: many regions, few regions


def compiled(image: Tensor, scale: float, sigma: float, min_size: int) -> Tensor:
    """Return the kernel's labels."""
    return felzenszwalb(image, scale, sigma, min_size).int()


def one_by_one(image: Tensor, scale: float, sigma: float, min_size: int) -> Tensor:
    """Return scikit-image's labels."""
    options = {"scale": scale, "sigma": sigma, "min_size": min_size, "channel_axis": None}
    return torch.from_numpy(np.stack([scikit(one.numpy(), **options) for one in image[:, 0]])).int()


def _make(name: str, batch: int, size: tuple[int, ...], device: torch.device) -> tuple[Tensor]:
    """Images with a little noise, so that no two differences between pixels are equal; batches of shifted copies."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, 1, *size, generator=generator, dtype=torch.float64)
    if name == "photograph":
        photograph = torch.from_numpy(data.camera() / 255.0)[None, None]
        picture = interpolate(photograph, size, mode="bilinear", antialias=True)[0, 0]
        rows = [picture.roll(17 * b, -1) for b in range(batch)]
        return ((torch.stack(rows)[:, None] + 1e-3 * noise).to(device),)
    coarse = torch.rand(batch, 1, *(-(-n // 16) for n in size), generator=generator, dtype=torch.float64)
    blobs = interpolate(coarse, size, mode="bilinear" if len(size) == 2 else "trilinear")
    return (((8 * blobs).round() / 8 + 0.03 * noise).to(device),)


def _problem(name: str, batch: int, size: tuple[int, ...], parameters: tuple[float, float, int]) -> Problem:
    scale, sigma, min_size = parameters
    options: dict[str, Any] = {"scale": scale, "sigma": sigma, "min_size": min_size}
    columns: dict[str, str | int] = {"mode": f"{len(size)}-D", "image": name}
    columns |= {"scale": int(scale), "sigma": str(sigma), "min_size": min_size}
    columns |= {"B": batch, "D": size[0] if len(size) == 3 else 1, "H": size[-2], "W": size[-1], "dtype": "float64"}
    pixels, edges = batch * int(np.prod(size)), {2: 4, 3: 13}[len(size)]
    forms: dict[str, Implementation] = {"compiled": partial(compiled, **options)}
    if len(size) == 2:
        forms["scikit-image"] = partial(one_by_one, **options)
    return Problem(
        columns=columns,
        work=Work(2e-9 * edges * pixels, 0.0, 12e-9 * pixels),
        make=partial(_make, name, batch, size),
        implementations=forms,
        device="cpu",
    )


SIZES = ((1, (128, 128)), (1, (256, 256)), (1, (512, 512)), (8, (512, 512)))
CASE = Case(
    "felzenszwalb",
    "scikit-image",
    [_problem(name, *size, p) for size in SIZES for name in ("photograph", "phantom") for p in PARAMETERS]
    + [_problem("phantom", 1, (side,) * 3, PARAMETERS[1]) for side in (64, 128)],
)
