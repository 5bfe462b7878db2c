# SPDX-License-Identifier: Apache-2.0
"""Controls: as many regions as asked for, inside of the mask, of the shape that they should have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewlabel.superpixels import grid_regions, random_regions


def disc(*shape: int) -> Tensor:
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return sum(a**2 for a in axes) < 0.9  # type: ignore[return-value]


def draw(mask: Tensor, count: int, spacing: tuple[float, ...], seed: int = 0) -> Tensor:
    return random_regions(mask, count, spacing, torch.Generator().manual_seed(seed))


CASES = [((60, 50), (1.0, 1.0), 40), ((60, 50), (2.0, 0.7), 100), ((20, 30, 25), (2.5, 1.0, 1.0), 150)]


@pytest.mark.parametrize(("shape", "spacing", "count"), CASES)
def test_number_place_and_order(shape: tuple[int, ...], spacing: tuple[float, ...], count: int) -> None:
    mask = disc(*shape)
    for labels, slack in ((grid_regions(mask, count, spacing), 0.1), (draw(mask, count, spacing), 0.0)):
        assert labels.dtype == torch.int32 and torch.equal(labels > 0, mask)
        assert abs(int(labels.max()) - count) <= slack * count
        flat = labels[mask]
        firsts = [int((flat == n).nonzero()[0]) for n in range(1, int(flat.max()) + 1)]
        assert firsts == sorted(firsts)


def test_grid_cells_are_boxes_of_equal_edges_in_millimeters() -> None:
    labels = grid_regions(torch.ones(40, 80, dtype=torch.bool), 64, (2.0, 1.0))
    assert int(labels.max()) == 64
    for n in range(1, 65):
        places = (labels == n).nonzero()
        assert (places.amax(0) - places.amin(0) + 1).tolist() == [5, 10]


def test_random_cells_are_nearest_to_their_points() -> None:
    mask, spacing = disc(21, 24), (1.0, 2.0)
    places = mask.nonzero()
    points = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(3))[:9]].double()
    scale = torch.tensor(spacing, dtype=torch.float64)
    distances = torch.cdist(places * scale, points * scale)
    labels = draw(mask, 9, spacing, seed=3)[mask]
    cell_of_point = draw(mask, 9, spacing, seed=3)[tuple(points.long().T)]
    clear = distances.topk(2, largest=False).values.diff(dim=1).squeeze(1) > 1e-9
    assert torch.equal(labels[clear], cell_of_point[distances.argmin(1)][clear])
    assert not torch.equal(labels, draw(mask, 9, spacing, seed=4)[mask])


@pytest.mark.parametrize("make", [grid_regions, draw])
def test_few_pixels_and_none(make: object) -> None:
    few = torch.zeros(5, 6, dtype=torch.bool)
    few[1, 2] = few[3, 4] = True
    assert make(few, 50, (1.0, 1.0))[few].tolist() == [1, 2]  # type: ignore[operator]
    for mask, count in ((few, 0), (torch.zeros_like(few), 7)):
        assert not make(mask, count, (1.0, 1.0)).any()  # type: ignore[operator]


@pytest.mark.parametrize("make", [grid_regions, draw])
def test_mistakes(make: object) -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    for wrong in ((mask, -1, (1.0, 1.0)), (mask, 2, (1.0,)), (mask, 2, (1.0, 0.0)), (mask.int(), 2, (1.0, 1.0))):
        with pytest.raises(ValueError, match="expected"):
            make(*wrong)  # type: ignore[operator]
