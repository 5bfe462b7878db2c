# SPDX-License-Identifier: Apache-2.0
"""Pixels drawn from superpixels: the sampler, a random key for each pixel that is then sorted, and a loop over masks.

Each draws 32 pixels of each region; the sort draws without replacement. Draws are compared by the regions that they
come from. Images are those of ``regions``. All forms get the index and the numbers of the regions, made beforehand.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fewlabel.kernels.regions import RegionIndex, sample_pixels
from tools.bench.case import Case, Problem, Work
from tools.bench.cases.regions import index_of

DRAWS = 32
SIZES = ((1, 128), (4, 256), (8, 512))  # B, side


def kernel(*inputs: Tensor) -> Tensor:
    """Return pixels (B, L, K) that the sampler drew."""
    *index, regions = inputs
    return sample_pixels(RegionIndex(*index), regions, DRAWS, seed=0, step=0)


def sort(*index: Tensor) -> Tensor:
    """Return the first pixels of each region in a random order."""
    ids, offsets = index[0].flatten(1), index[2]
    order = torch.sort(ids + torch.rand(ids.shape, device=ids.device, dtype=torch.float64)).indices
    places = offsets[:, :-1, None] + torch.arange(DRAWS, device=ids.device)
    return order.gather(1, places.flatten(1).long()).view(places.shape)


def loop(*index: Tensor) -> Tensor:
    """Return pixels drawn from one mask after the other."""
    drawn = []
    for ids in index[0].flatten(1):
        for region in range(index[3].shape[1]):
            members = (ids == region).nonzero()[:, 0]
            drawn.append(members[torch.randint(len(members), (DRAWS,), device=ids.device)])
    return torch.stack(drawn).view(len(index[0]), -1, DRAWS)


def regions_of(pixels: Tensor, *index: Tensor) -> Tensor:
    """Return the regions (B, L, K) of pixels."""
    return index[0].flatten(1).gather(1, pixels.flatten(1)).view(pixels.shape)


def _inputs(batch: int, side: int, device: torch.device) -> tuple[Tensor, ...]:
    index = index_of("photograph", batch, side, device)
    return *index, torch.arange(index[3].shape[1], device=device).repeat(batch, 1)


def _problem(batch: int, side: int) -> Problem:
    return Problem(
        columns={"mode": "pixels", "image": "photograph", "B": batch, "N": side},
        work=Work(0.0, 0.0, 1e-9 * batch * side**2 * 4),  # labels read once, as by those that keep no index
        make=partial(_inputs, batch, side),
        implementations={"kernel": kernel, "sort": sort, "loop": loop},
        compared=regions_of,
        rounds=5 if side == 512 else 30,
    )


CASE = Case("samples", "loop", [_problem(*size) for size in SIZES])
