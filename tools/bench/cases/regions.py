# SPDX-License-Identifier: Apache-2.0
"""Means of features over superpixels against what PyTorch offers.

Regions are those of a photograph (154 of an image of 256 x 256, 1,033 of 512 x 512; pixels in a row that share one: 10
to 13) or, with ``background``, one that holds 60 % of the image beside them. ``planes`` are (B, C, H, W), ``rows`` the
same in ``channels_last``. All forms get the index, made beforehand.
"""

from __future__ import annotations

import functools
import math
from functools import partial

import torch
from skimage import data
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from fewlabel.kernels.felzenszwalb import felzenszwalb
from fewlabel.kernels.regions import RegionIndex, region_index, region_mean
from tools.bench.case import Case, Implementation, Problem, Work

PARAMETERS = {128: (1, 1.0, 100), 256: (1, 1.0, 100), 512: (15, 0.8, 32)}  # scale, sigma, min_size
SIZES = {"cpu": ((1, 16, 128), (4, 64, 256)), "cuda": ((4, 64, 256), (8, 128, 512))}  # B, C, side
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.bfloat16)}


@functools.cache
def superpixels(side: int) -> Tensor:
    """Return (side, side) labels."""
    photograph = torch.from_numpy(data.camera() / 255.0)[None, None]
    image = interpolate(photograph, (side, side), mode="bilinear", antialias=True)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return felzenszwalb(image + 1e-3 * noise, *PARAMETERS[side]).long()[0]


def kernel(features: Tensor, *index: Tensor) -> Tensor:
    """Return the means (B, L, C) by the form that ``auto`` chooses."""
    return region_mean(features, RegionIndex(*index))


def index_add(features: Tensor, *index: Tensor) -> Tensor:
    """Return the means from rows added to rows."""
    slots, counts = _slots(*index)
    rows = features.flatten(2).mT.flatten(0, 1).float()
    sums = rows.new_zeros(counts.numel(), rows.shape[1]).index_add(0, slots, rows)
    return sums.view(*counts.shape, -1) / counts.unsqueeze(-1)


def scatter_reduce(features: Tensor, *index: Tensor) -> Tensor:
    """Return the means from planes scattered to planes."""
    flat = features.flatten(2).float()
    where = index[0].flatten(1).long().unsqueeze(1).expand_as(flat)
    zeros = flat.new_zeros(*flat.shape[:2], index[3].shape[1])
    return zeros.scatter_reduce(2, where, flat, "mean", include_self=False).mT


def product(features: Tensor, *index: Tensor) -> Tensor:
    """Return the means from the product with a matrix of zeros and ones."""
    _, counts = _slots(*index)
    flat = features.flatten(2).float()
    members = one_hot(index[0].flatten(1).long(), index[3].shape[1]).to(flat.dtype)
    return (flat @ members).mT / counts.unsqueeze(-1)


def loop(features: Tensor, *index: Tensor) -> Tensor:
    """Return the means from one mask after the other."""
    _, counts = _slots(*index)
    flat, ids = features.flatten(2).float(), index[0].flatten(1)
    sums = [[one[:, i == r].sum(dim=1) for r in range(counts.shape[1])] for one, i in zip(flat, ids, strict=True)]
    return torch.stack([torch.stack(rows) for rows in sums]) / counts.unsqueeze(-1)


def _slots(*index: Tensor) -> tuple[Tensor, Tensor]:
    """Number the regions of the batch: that of each pixel (B S); and the pixels of each (B, L), at least 1."""
    ids, counts = index[0].flatten(1), RegionIndex(*index).counts.clamp(min=1)
    first = torch.arange(len(ids), device=ids.device).unsqueeze(1) * counts.shape[1]
    return (ids + first).flatten(), counts


def index_of(image: str, batch: int, side: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the tensors of an index."""
    return tuple(region_index(labels_of(image, batch, side)).to(device).tensors().values())


@functools.cache
def labels_of(image: str, batch: int, side: int) -> Tensor:
    """Return (batch, side, side) regions; an image of the batch is the photograph, shifted."""
    labels = torch.stack([superpixels(side).roll(17 * b, -1) for b in range(batch)])
    if image == "background":
        y, x = torch.meshgrid(*[torch.arange(side) - side / 2] * 2, indexing="ij")
        labels = torch.where(x**2 + y**2 < 0.4 / math.pi * side**2, labels + 1, 0)
        labels = torch.stack([one.unique(return_inverse=True)[1] for one in labels])
    return labels


def _features(
    image: str, size: tuple[int, int, int], layout: str, dtype: torch.dtype, backward: bool, device: torch.device
) -> tuple[Tensor, ...]:
    batch, channels, side = size
    generator = torch.Generator(device).manual_seed(0)
    values = torch.randn(batch, channels, side, side, generator=generator, device=device, dtype=dtype)
    values = values.to(memory_format=torch.channels_last if layout == "rows" else torch.contiguous_format)
    return values.requires_grad_(backward), *index_of(image, batch, side, device)


def _loss(means: Implementation, *inputs: Tensor) -> Tensor:
    return means(*inputs).square().sum()


MEANS: dict[str, Implementation] = {
    "kernel": kernel,
    "index_add": index_add,
    "scatter_reduce": scatter_reduce,
    "one-hot product": product,
    "loop": loop,
}


def _mean(
    device: str, image: str, size: tuple[int, int, int], layout: str, dtype: torch.dtype, backward: bool
) -> Problem:
    batch, channels, side = size
    values, passes = batch * channels * side**2, 1 + backward  # features are read, their gradient is written
    return Problem(
        columns={"mode": "forward+backward" if backward else "forward", "image": image, "layout": layout}
        | {"dtype": str(dtype).removeprefix("torch."), "B": batch, "C": channels, "N": side},
        work=Work(1e-9 * passes * values, 0.0, 1e-9 * passes * (values * dtype.itemsize + 4 * batch * side**2)),
        make=partial(_features, image, size, layout, dtype, backward),
        implementations={name: partial(_loss, form) for name, form in MEANS.items()} if backward else MEANS,
        backward=backward,
        skip=("one-hot product", "loop") if side == 512 else (),  # gigabytes; thousands of masks
        device=device,
    )


CASE = Case(
    "regions",
    "index_add",
    [
        _mean(device, image, size, layout, dtype, backward)
        for device, sizes in SIZES.items()
        for size in sizes
        for dtype in DTYPES[device]
        for image in ("photograph", "background")
        for layout in ("planes", "rows")
        for backward in (False, True)
    ],
)
