# SPDX-License-Identifier: Apache-2.0
"""Windows of two views lie on the grid, around the body, and show the same regions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.engines.steps.windows import Window, draw_windows
from fewlabel.errors import ConfigError


def blocks(*space: int, edge: int = 4) -> torch.Tensor:
    """Return a map of numbered cubes, (1, *space)."""
    label = torch.zeros(space, dtype=torch.int32)
    for axis, n in enumerate(space):
        place = (torch.arange(n, dtype=torch.int32) // edge).view(*[n if i == axis else 1 for i in range(len(space))])
        label = label * 100 + place
    return label[None]


@given(st.integers(0, 10**6), st.floats(0.05, 1.0), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=2, max_size=3))
def test_windows_are_whole_cells_inside_of_the_views(seed: int, share: float, stride: list[int]) -> None:
    torch.manual_seed(seed)
    grid = [int(n) for n in torch.randint(1, 6, (len(stride),))]
    maps = torch.randint(-1, 5, (2, 3, *[n * s for n, s in zip(grid, stride, strict=True)]))
    for window in draw_windows(*maps, share, stride):
        assert list(window.cells) == [max(1, int(share * n)) for n in grid]
        for corner in window.corners:
            assert all(0 <= c <= g - n for c, g, n in zip(corner, grid, window.cells, strict=True))


def test_the_second_window_follows_the_regions() -> None:
    maps = blocks(64, 64)
    moved = torch.full_like(maps, -1)
    moved[:, 16:, :48] = maps[:, :48, 16:]  # 16 down, 16 to the left
    for seed in range(20):
        torch.manual_seed(seed)
        first, second = draw_windows(maps, moved, 0.25, [8, 8])
        expected = [min(6, first.corners[0][0] + 2), max(0, first.corners[0][1] - 2)]
        if first.corners[0][0] <= 4 and first.corners[0][1] >= 2:  # wholly in the second view
            assert second.corners[0] == expected
            assert torch.equal(first.crop(maps, [8, 8]), second.crop(moved, [8, 8]))


def test_each_body_pixel_is_the_middle_equally_often() -> None:
    maps = torch.full((1, 64, 8), -1)
    maps[:, 8:16] = 0
    maps[:, 40:56] = 1
    torch.manual_seed(0)
    rows = [draw_windows(maps, maps, 0.125, [8, 8])[0].corners[0][0] for _ in range(300)]
    assert set(rows) == {1, 5, 6}
    assert all(70 < rows.count(row) < 130 for row in (1, 5, 6))


def test_without_a_region_the_window_is_in_the_middle() -> None:
    nothing = torch.full((2, 32, 32, 32), -1)
    first, second = draw_windows(nothing, nothing, 0.5, [8, 8, 8])
    assert first.corners == second.corners == [[1, 1, 1]] * 2


def test_regions_that_the_second_view_lacks_leave_its_window_at_the_same_place() -> None:
    torch.manual_seed(0)
    maps = blocks(32, 32)
    first, second = draw_windows(maps, maps + 10**6, 0.5, [8, 8])
    assert first.corners == second.corners


def test_crops_of_all_levels_show_one_place() -> None:
    window = Window([[1, 0], [0, 2]], [1, 2])
    grid = torch.arange(12.0).view(1, 1, 3, 4).expand(2, 1, 3, 4)
    levels = [torch.kron(grid, torch.ones(1, 1, s, s)).requires_grad_() for s in (4, 2, 1)]
    cut = window.crop_features(levels)
    assert [tuple(c.shape) for c in cut] == [(2, 1, 4, 8), (2, 1, 2, 4), (2, 1, 1, 2)]
    for c in cut:
        assert [sorted(set(image.flatten().tolist())) for image in c] == [[4.0, 5.0], [2.0, 3.0]]
    sum(c.sum() for c in cut).backward()
    assert [level.grad.sum().item() for level in levels] == [64.0, 16.0, 4.0]


def test_views_that_are_not_whole_cells() -> None:
    with pytest.raises(
        ConfigError, match=r"spatial_size \[32, 36\] .* multiples of \[8, 8\], or set local_window to 1"
    ):
        draw_windows(torch.zeros(1, 32, 36, dtype=torch.int32), torch.zeros(1, 32, 36, dtype=torch.int32), 0.5, [8, 8])
