# SPDX-License-Identifier: Apache-2.0
"""Connected components: runs and union-find against SciPy, scikit-image, MONAI's transforms, and max-pool propagation.

Columns: what is asked (``label``, ``largest``, ``fill holes``), of which images (``blobs``: smoothed noise; ``noise``:
a coin for each pixel, as many components as there can be in practice).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.transforms import FillHoles, KeepLargestConnectedComponent
from scipy import ndimage
from skimage import measure
from torch import Tensor
from torch.nn.functional import max_pool2d

from fewlabel.kernels.components import connected_components, fill_holes, largest_component
from tools.bench.case import Case, Implementation, Problem, Work

SIZES = ((1, (512, 512)), (16, (512, 512)), (1, (128, 128, 128)))  # batch, space
FACES = {2: 4, 3: 6}  # connectivity by dimensions


def _each(one: Callable[[np.ndarray], np.ndarray], masks: Tensor) -> Tensor:
    """Call a function of one NumPy image for each image of a batch."""
    return torch.from_numpy(np.stack([one(mask) for mask in masks.numpy()]))


def _labels(masks: Tensor, backend: str) -> Tensor:
    return connected_components(masks, FACES[masks.ndim - 1], backend=backend)[0]


def _largest(masks: Tensor) -> Tensor:
    return largest_component(masks, FACES[masks.ndim - 1])


def _filled(masks: Tensor) -> Tensor:
    return fill_holes(masks, FACES[masks.ndim - 1])


def _scipy_largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def propagated(masks: Tensor) -> Tensor:
    """Return components by spreading the largest index to neighbors until nothing changes, one pixel a round.

    Numbered by their last pixels, so only the number of components and their shapes are those of the others.
    """
    n = masks[0].numel()
    index = torch.arange(1, n + 1, dtype=torch.float64).view(1, *masks.shape[1:]) * masks
    cross = ((3, 1), (1, 3))
    while True:
        spread = index
        for window in cross:
            pooled = max_pool2d(index[:, None], window, 1, (window[0] // 2, window[1] // 2))[:, 0]
            spread = torch.maximum(spread, pooled)
        spread = spread * masks
        if torch.equal(spread, index):
            return index
        index = spread


def _monai(transform: Callable[[Tensor], Tensor], masks: Tensor) -> Tensor:
    return torch.stack([torch.as_tensor(transform(mask[None])).as_subclass(Tensor)[0] for mask in masks])


FORMS: dict[str, dict[str, Implementation]] = {
    "label": {
        "compiled": partial(_labels, backend="cpu"),
        "torch": partial(_labels, backend="torch"),
        "scipy": partial(_each, lambda mask: ndimage.label(mask)[0]),
        "skimage": partial(_each, lambda mask: measure.label(mask, connectivity=1)),
        "max-pool": propagated,
    },
    "largest": {
        "compiled": _largest,
        "scipy": partial(_each, _scipy_largest),
        "monai": partial(_monai, KeepLargestConnectedComponent(is_onehot=False, independent=False, connectivity=1)),
    },
    "fill holes": {
        "compiled": _filled,
        "scipy": partial(_each, ndimage.binary_fill_holes),
        "monai": partial(_monai, FillHoles(connectivity=1)),
    },
}


def _make(image: str, batch: int, space: tuple[int, ...], device: torch.device) -> tuple[Tensor]:
    noise = np.random.default_rng(0).standard_normal((batch, *space)).astype(np.float32)
    if image == "blobs":
        noise = np.stack([ndimage.gaussian_filter(field, 4.0) for field in noise])
    return (torch.from_numpy(noise > 0).to(device),)


def _problem(asked: str, image: str, batch: int, space: tuple[int, ...]) -> Problem:
    written = 4 if asked == "label" else 1
    is_small = batch == 1 and len(space) == 2
    slow = ("max-pool", "torch") if not is_small else ("max-pool",) if image == "blobs" else ()  # seconds to minutes
    return Problem(
        columns={"asked": asked, "image": image, "dims": len(space), "B": batch, "N": space[-1]},
        work=Work(0.0, 0.0, 1e-9 * (1 + written) * batch * int(np.prod(space))),
        make=partial(_make, image, batch, space),
        implementations=FORMS[asked],
        skip=slow,
    )


CASE = Case(
    "components",
    "scipy",
    [_problem(a, image, *size) for a in FORMS for image in ("blobs", "noise") for size in SIZES],
)
