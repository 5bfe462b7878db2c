# SPDX-License-Identifier: Apache-2.0
"""Distances with nearest seeds, and Voronoi cells: envelopes against SciPy, MONAI, scikit-image and all pairs.

SciPy and scikit-image compute on the CPU: on a GPU their time holds both copies, which is what they cost there.
Columns: what is asked (``distance``: with indices, ``cells``: of 200 points), of which images (``blobs``: distance to
the outside of smoothed noise; ``points``: 200 seeds).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.transforms.utils import distance_transform_edt
from scipy import ndimage
from skimage.segmentation import expand_labels
from torch import Tensor

from fewlabel.kernels.distance import nearest_seed, voronoi_labels
from tools.bench.case import Case, Implementation, Problem, Work

SIZES = ((1, (512, 512)), (16, (512, 512)), (1, (128, 128, 128)))  # batch, space
POINTS = 200


def _each(one: Callable[[np.ndarray], np.ndarray], seeds: Tensor) -> Tensor:
    """Call a function of one NumPy image for each image of a batch."""
    return torch.from_numpy(np.stack([one(image) for image in seeds.cpu().numpy()])).to(seeds.device)


def _distance(seeds: Tensor) -> Tensor:
    return nearest_seed(seeds, seeds.ndim - 1)[0]


def _cells(seeds: Tensor) -> Tensor:
    return voronoi_labels(seeds, seeds.ndim - 1)


def _scipy_distance(seeds: np.ndarray) -> np.ndarray:
    distance, _ = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.asarray(distance)


def _scipy_cells(seeds: np.ndarray) -> np.ndarray:
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    return np.asarray(seeds[tuple(nearest)])


def _monai_distance(seeds: Tensor) -> Tensor:
    parts = [distance_transform_edt((image == 0)[None].float(), return_indices=True) for image in seeds]
    return torch.stack([torch.as_tensor(distance)[0] for distance, _ in parts])


def all_pairs(seeds: Tensor) -> Tensor:
    """Return cells from the distances of all pixels to all seeds, stored."""
    out = torch.empty_like(seeds)
    axes = [torch.arange(n, dtype=torch.float32, device=seeds.device) for n in seeds.shape[1:]]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, seeds.ndim - 1)
    for image, target in zip(seeds, out, strict=True):
        chosen = image.flatten().nonzero().flatten()
        target.view(-1).copy_(image.flatten()[chosen[torch.cdist(pixels, pixels[chosen]).argmin(dim=1)]])
    return out


def distance_to_own_seed(cells: Tensor, seeds: Tensor) -> Tensor:
    """Return the distance of every pixel to the point whose cell it is in, wherever two are equally near.

    Args:
        cells: (B, *space), the number of a point.
        seeds: (B, *space), each number of a point once, 0 elsewhere.
    """
    out = torch.empty(cells.shape, dtype=torch.float32, device=cells.device)
    for own, image, target in zip(cells, seeds, out, strict=True):
        places = image.nonzero()
        of_number = torch.zeros(int(image.max()) + 1, image.ndim, device=image.device)
        of_number[image[tuple(places.T)].long()] = places.float()
        pixels = torch.ones_like(image).nonzero().float()
        target.view(-1).copy_((pixels - of_number[own.flatten().long()]).norm(dim=1))
    return out


FORMS: dict[str, dict[str, Implementation]] = {
    "distance": {
        "kernel": _distance,
        "scipy": partial(_each, _scipy_distance),
        "monai": _monai_distance,
    },
    "cells": {
        "kernel": _cells,
        "scipy": partial(_each, _scipy_cells),
        "skimage": partial(_each, partial(expand_labels, distance=1e9)),
        "all pairs": all_pairs,
    },
}


def _make(image: str, batch: int, space: tuple[int, ...], device: torch.device) -> tuple[Tensor]:
    random = np.random.default_rng(0)
    if image == "points":
        seeds = np.zeros((batch, int(np.prod(space))), np.int32)
        for row in seeds:
            row[random.choice(len(row), POINTS, replace=False)] = np.arange(1, POINTS + 1)
        return (torch.from_numpy(seeds.reshape(batch, *space)).to(device),)
    fields = [ndimage.gaussian_filter(random.standard_normal(space), 4.0) for _ in range(batch)]
    return (torch.from_numpy((np.stack(fields) <= 0).astype(np.int32)).to(device),)


def _problem(asked: str, image: str, batch: int, space: tuple[int, ...]) -> Problem:
    written = 12 if asked == "distance" else 4
    is_large = len(space) == 3 or batch > 1
    return Problem(
        columns={"asked": asked, "image": image, "dims": len(space), "B": batch, "N": space[-1]},
        work=Work(0.0, 0.0, 1e-9 * (4 + written) * batch * int(np.prod(space))),
        make=partial(_make, image, batch, space),
        implementations=FORMS[asked],
        skip=("all pairs",) if is_large else (),
        compared=distance_to_own_seed if asked == "cells" else None,
    )


CASE = Case(
    "distance",
    "scipy",
    [
        _problem(asked, image, *size)
        for asked, image in (("distance", "blobs"), ("distance", "points"), ("cells", "points"))
        for size in SIZES
    ],
)
