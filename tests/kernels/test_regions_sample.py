# SPDX-License-Identifier: Apache-2.0
"""Random regions and pixels: uniform, without replacement where that is said, and the same wherever they are drawn."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from tests.kernels._threads import torch_threads
from torch import Tensor

from fewlabel.kernels.regions import RegionIndex, region_index, sample, sample_pixels, sample_regions, stack_indices

SIZES = (1, 7, 64, 300)  # pixels of the regions of ``index``
WRAP = 2**64


def index_of(*sizes: int, images: int = 1) -> RegionIndex:
    """Regions of the given sizes, their pixels scattered over each image; a few pixels belong to none."""
    labels = torch.repeat_interleave(torch.tensor([-1, *range(len(sizes))]), torch.tensor([3, *sizes]))
    generator = torch.Generator().manual_seed(0)
    maps = [labels[torch.randperm(len(labels), generator=generator)] for _ in range(images)]
    return region_index(torch.stack(maps), spatial_dims=1)


def bits_of(counter: int, *parts: int) -> int:
    """SplitMix64 in Python's integers, which do not overflow."""

    def mixed(state: int) -> int:
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % WRAP
        state = (state ^ state >> 27) * 0x94D049BB133111EB % WRAP
        return state ^ state >> 31

    key, gamma = 0, 0x9E3779B97F4A7C15
    for part in parts:
        key = mixed(((key ^ part % WRAP) + gamma) % WRAP)
    return mixed((key + (counter + 1) * gamma) % WRAP)


def test_reference_generator_is_splitmix64() -> None:
    """Its first outputs from state 0, which other implementations publish."""
    assert [bits_of(n) for n in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (1, 2), (-1, 2**63), (2**80 + 5, -(2**40))])
def test_draws_are_those_of_unbounded_integers(seed: int, step: int) -> None:
    """Products of 64 bits wrap silently in int64; negative and huge seeds are taken modulo 2^64."""
    index = index_of(*SIZES, images=3)
    regions = torch.arange(4).expand(3, 4)
    drawn = sample_pixels(index, regions, 5, seed, step, stream=7)
    for b in range(3):
        for r, size in enumerate(SIZES):
            for k in range(5):
                bits = bits_of((b << 48) + (r << 24) + k, seed, step, 7, 1)
                entry = (bits >> 32) * size >> 32
                assert drawn[b, r, k] == (index.ids[b] == r).nonzero()[entry, 0]


def test_known_answers() -> None:
    """Pinned, so that every device and every release draws the same."""
    index = stack_indices([region_index(torch.arange(4 * 6).view(4, 6) // 5) for _ in range(2)])
    assert sample_regions(index, 4, seed=3, step=11).tolist() == [[1, 2, 4, 0], [4, 3, 2, 0]]
    drawn = sample_pixels(index, torch.tensor([[0, 4], [3, -1]]), 3, seed=3, step=11)
    assert drawn.tolist() == [[[2, 3, 3], [22, 20, 20]], [[18, 17, 16], [-1, -1, -1]]]


def test_pixels_are_uniform() -> None:
    """Chi-square at a fixed seed: of each region's pixels, and of pairs of successive draws."""
    index = index_of(*SIZES)
    drawn = sample_pixels(index, torch.arange(4).view(1, 4), 30000, seed=0, step=0)[0]
    for region, size in enumerate(SIZES):
        members = (index.ids[0] == region).nonzero()[:, 0]
        place = torch.searchsorted(members, drawn[region])
        assert torch.equal(members[place], drawn[region])
        if size > 1:
            assert stats.chisquare(place.bincount(minlength=size)).pvalue > 1e-3
    place = torch.searchsorted((index.ids[0] == 1).nonzero()[:, 0], drawn[1]).view(-1, 2)
    assert stats.chisquare((7 * place[:, 0] + place[:, 1]).bincount(minlength=49)).pvalue > 1e-3


def test_regions_are_uniform_and_without_replacement() -> None:
    index = index_of(*[2] * 6, images=2000)
    first = torch.cat([sample_regions(index, 3, seed=1, step=step) for step in range(3)])
    assert (first.sort(dim=1).values.diff(dim=1) > 0).all()
    orders = first @ torch.tensor([36, 6, 1])
    counts = orders.bincount(minlength=216)
    assert (counts > 0).sum() == 6 * 5 * 4
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"stream": 1}])
def test_other_seeds_steps_and_streams_draw_otherwise(change: dict[str, int]) -> None:
    index, regions = index_of(*SIZES), torch.tensor([[3]])
    base = {"seed": 0, "step": 0, "stream": 0}
    one, other = (sample_pixels(index, regions, 2000, **options) for options in (base, base | change))
    table = torch.zeros(300, 300)
    members = (index.ids[0] == 3).nonzero()[:, 0]
    table[torch.searchsorted(members, one.flatten()), torch.searchsorted(members, other.flatten())] = 1
    assert 0 < (one == other).sum() < 30  # 7 of 2,000 by chance
    assert not torch.equal(*(sample_regions(index_of(*[1] * 50), 50, **options) for options in (base, base | change)))


def test_draws_do_not_depend_on_what_else_is_drawn() -> None:
    index = index_of(*SIZES, images=3)
    every = torch.arange(4).expand(3, 4)
    drawn = sample_pixels(index, every, 9, seed=5, step=6)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(sample_pixels(index, every[:, order], 9, seed=5, step=6), drawn[:, order])
    assert torch.equal(sample_pixels(index, every[:, 1:2], 4, seed=5, step=6), drawn[:, 1:2, :4])
    assert torch.equal(sample_regions(index, 2, 5, 6), sample_regions(index, 4, 5, 6)[:, :2])
    start = RegionIndex(*(t[:2] for t in index.tensors().values()))
    assert torch.equal(sample_pixels(start, every[:2], 9, seed=5, step=6), drawn[:2])


@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_loop_and_operators_draw_the_same(threads: int) -> None:
    """The loop is for a CPU, the operators are for all other devices; enough draws for several threads."""
    index = index_of(*SIZES, images=5)
    regions = sample_regions(index, 6, seed=2, step=9, min_pixels=2)
    with torch_threads(threads):
        drawn = sample_pixels(index, regions, 4000, seed=2, step=9, stream=3)
    assert torch.equal(drawn, sample._draw(index, regions, 4000, sample._key(2, 9, 3, sample._PIXELS)))


def test_only_eligible_regions_are_drawn() -> None:
    index = index_of(*SIZES, images=2)
    assert sample_regions(index, 6, 0, 0, min_pixels=7).sort(dim=1).values.tolist() == [[-1, -1, -1, 1, 2, 3]] * 2
    eligible = torch.tensor([[True, False, False, True], [False] * 4])
    assert sample_regions(index, 2, 0, 0, min_pixels=7, eligible=eligible).tolist() == [[3, -1], [-1, -1]]


@pytest.mark.parametrize("labels", [torch.full((1, 2, 3), -1), torch.zeros(1, 0, 3, dtype=torch.int64)])
@pytest.mark.parametrize("num_labels", [None, 2])
def test_nothing_to_draw_from(labels: Tensor, num_labels: int | None) -> None:
    index = region_index(labels, num_labels=num_labels)
    assert sample_regions(index, 3, 0, 0).tolist() == [[-1, -1, -1]]
    assert sample_pixels(index, torch.tensor([[0, -1]]), 2, 0, 0).tolist() == [[[-1, -1], [-1, -1]]]


def test_a_region_without_pixels_gives_none() -> None:
    index = region_index(torch.tensor([[0, 2]]), num_labels=3)
    assert sample_pixels(index, torch.tensor([[0, 1, 2]], dtype=torch.int32), 1, 0, 0).tolist() == [[[0], [-1], [1]]]
    assert sample_pixels(index, torch.zeros(1, 0, dtype=torch.int64), 4, 0, 0).shape == (1, 0, 4)
    assert sample_regions(index, 0, 0, 0).shape == (1, 0)


@pytest.mark.parametrize("draws", [1, 2**15])
def test_a_number_that_is_not_that_of_a_region_is_named(draws: int) -> None:
    """In the last image, and in numbers of draws for one thread and for several."""
    index = index_of(*SIZES, images=3)
    regions = torch.tensor([[0], [-1], [4]])
    with torch_threads(3), pytest.raises(ValueError, match=r"regions must be below 4, the regions of this .*, got 4"):
        sample_pixels(index, regions, draws, 0, 0)


def test_mistakes_are_named() -> None:
    index = index_of(*SIZES)
    with pytest.raises(ValueError, match=r"regions must be \(1, R\) integers, got \(2, 1\)"):
        sample_pixels(index, torch.zeros(2, 1, dtype=torch.int64), 1, 0, 0)
    with pytest.raises(ValueError, match=r"integers, got .*float32"):
        sample_pixels(index, torch.zeros(1, 1), 1, 0, 0)
    with pytest.raises(ValueError, match=r"per_region must be 0 to 2\^24 - 1, got -1"):
        sample_pixels(index, torch.zeros(1, 1, dtype=torch.int64), -1, 0, 0)
    with pytest.raises(ValueError, match=r"eligible must be \(1, 4\) bool, got \(4,\)"):
        sample_regions(index, 1, 0, 0, eligible=torch.ones(4, dtype=torch.bool))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same() -> None:
    index = index_of(*SIZES, images=5)
    regions = sample_regions(index, 3, seed=2, step=9)
    assert torch.equal(sample_regions(index.to("cuda"), 3, seed=2, step=9).cpu(), regions)
    pixels = sample_pixels(index, regions, 50, seed=2, step=9)
    assert torch.equal(sample_pixels(index.to("cuda"), regions.cuda(), 50, seed=2, step=9).cpu(), pixels)
