# SPDX-License-Identifier: Apache-2.0
"""The GPU form of region sums where there is no GPU: interpreted, and compiled ahead of time.

Triton decides between the two when it is imported, so the interpreted part is this file, run by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with the CUDA build of torch")

from fewlabel.kernels.regions import RegionIndex, region_index, region_max, region_mean, region_sum

INTEGERS = ("stride_b", "stride_c", "stride_p", "channels", "pixels", "regions", "slots", "steps")


POINTERS = ("perm", "offsets", "ids", "entries")
KERNELS = ("_piece_kernel", "_total_kernel", "_spread_kernel", "_top_piece_kernel", "_top_kernel")


def labels_of(*shape: int, most: int) -> Tensor:
    """Labels -1 ... most - 1, and one region that holds half of each image."""
    labels = torch.randint(-1, most, shape, generator=torch.Generator().manual_seed(0))
    labels[:, : shape[1] // 2] = 1
    return labels


def values_and_gradient(features: Tensor, index: RegionIndex, backend: str) -> tuple[Tensor, Tensor]:
    leaf = features.detach().clone().requires_grad_()
    means = region_mean(leaf, index, backend=backend)
    weight = torch.linspace(-1, 1, means.numel(), dtype=means.dtype, device=means.device).view(means.shape)
    return means.detach(), torch.autograd.grad((means * weight).sum(), leaf)[0]


def compare(features: Tensor, index: RegionIndex) -> None:
    """The kernels beside the dense form in float64, and beside themselves."""
    got, again = (values_and_gradient(features, index, "triton") for _ in range(2))
    expected = values_and_gradient(features.double(), index, "reference")
    assert got[0].dtype == torch.promote_types(features.dtype, torch.float32)
    assert (got[1].dtype, got[1].is_contiguous()) == (features.dtype, features.is_contiguous())
    for side, exact, tolerance in zip(got, expected, (1e-6, torch.finfo(features.dtype).eps), strict=True):
        assert (side.double() - exact).abs().max() <= tolerance * exact.abs().max()
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    compare_maxima(features.detach().round(), index)


def compare_maxima(features: Tensor, index: RegionIndex) -> None:
    """The first pixel of the largest value, exactly: values with many equals, infinities and NaN."""
    from fewlabel.kernels.regions import reference, triton

    odd = features.clone()
    odd.flatten(2)[:, ::2, ::7] = -torch.inf
    odd.flatten(2)[:, 1::3, 5::11] = torch.nan
    for values in (features, odd):
        got, expected = (form.region_argmax(values.flatten(2), index) for form in (triton, reference))
        assert torch.equal(got, expected)
    torch.testing.assert_close(
        region_max(odd, index, backend="triton"), region_max(odd, index, backend="reference"), equal_nan=True
    )


def interpreted() -> None:
    """Small pieces, so that few pixels fill several; each shape in planes and in rows."""
    from fewlabel.kernels.regions import triton

    triton._GROUP, triton._SLOTS = 16, 2
    triton.sum_tile = lambda in_rows, channels: triton.Tile(8, 16 if in_rows else 32, piece=32)
    triton.spread_tile = lambda in_rows, channels: triton.Tile(8, 16)
    random = torch.Generator().manual_seed(1)
    for (batch, channels, *space), dtype in (
        ((2, 5, 11, 13), torch.float32),
        ((1, 17, 3, 5, 7), torch.bfloat16),
        ((1, 3, 9, 8), torch.float16),
        ((1, 1, 1, 1), torch.float64),
    ):
        index = region_index(labels_of(batch, *space, most=4), spatial_dims=len(space), num_labels=6)
        planes = torch.randn(batch, channels, *space, generator=random, dtype=dtype)
        compare(planes, index)
        last = torch.channels_last if len(space) == 2 else torch.channels_last_3d
        compare(planes.contiguous(memory_format=last), index)
    index = region_index(labels_of(2, 6, 7, most=3))
    strided = torch.randn(2, 8, 6, 7, generator=random)[:, ::2]
    assert torch.allclose(region_sum(strided, index, backend="triton"), region_sum(strided, index, backend="reference"))
    for labels, shape in (
        (torch.full((2, 3), -1), (1, 4, 2, 3)),
        (torch.zeros(1, 0, 3, dtype=torch.int32), (1, 4, 0, 3)),
    ):
        empty = torch.zeros(shape, requires_grad=True)
        total = region_sum(empty, region_index(labels, num_labels=2), backend="triton")
        assert total.tolist() == [[[0.0] * 4] * 2]
        assert region_max(empty, region_index(labels, num_labels=2), backend="triton").tolist() == total.tolist()
        assert torch.equal(torch.autograd.grad(total.sum(), empty)[0], torch.zeros(shape))


def interpreted_draws() -> None:
    """Those of the operators, for draws in several programs, regions that do not exist and empty ones."""
    from fewlabel.kernels.regions import sample, triton

    index = region_index(labels_of(3, 11, 13, most=4), num_labels=6)
    regions = torch.tensor([[0, 5, -1, 3], [2, 2, 1, 0], [-1, 3, 1, 4]])
    for seed in (0, 7, -5, 2**63):
        key = sample._key(seed, 9, 1, sample._PIXELS)
        drawn = triton.draw_pixels(index, regions, 70, key + sample.GAMMA)
        assert torch.equal(drawn, sample._draw(index, regions, 70, key))
        assert (drawn < 0).any() and (drawn >= 0).any()
    assert triton.draw_pixels(index, regions, 0, 1).shape == (3, 4, 0)
    assert triton.draw_pixels(index, torch.full((3, 1), 6), 2, 1).tolist() == [[[-1, -1]]] * 3, "no such region"


@pytest.mark.slow
def test_interpreted() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("number", ["fp32", "bf16"])
@pytest.mark.parametrize("in_rows", [False, True])
def test_compiled_for(capability: int, number: str, in_rows: bool) -> None:
    """64 channels and pixels in multiples of 16; a third of an SM's threads find registers, and rows go by 16 bytes."""
    from tests.kernels._aot import compile_for

    from fewlabel.kernels.regions import triton

    types = dict.fromkeys(INTEGERS, "i32") | dict.fromkeys(POINTERS, "*i32") | {"best": "*i64"}
    types |= dict.fromkeys(("features", "gradient"), f"*{number}")
    shared = {"GROUP": triton._GROUP, "stride_c" if in_rows else "stride_p": 1}
    tile, spread = triton.sum_tile(in_rows, 64), triton.spread_tile(in_rows, 64)
    pieces = shared | {"CHANNELS": tile.channels, "PIXELS": tile.pixels, "PIECE": tile.piece}
    slots = {"PIECE": tile.piece, "CHANNELS": 64, "SLOTS": triton._SLOTS}
    block = shared | {"CHANNELS": spread.channels, "PIXELS": spread.pixels, "MEAN": True}
    kernels = {
        triton._piece_kernel: (pieces, tile.warps),
        triton._top_piece_kernel: (pieces, tile.warps),
        triton._spread_kernel: (block, spread.warps),
        triton._total_kernel: (slots | {"MEAN": True}, triton.TOTAL_WARPS),
        triton._top_kernel: (slots, triton.TOP_WARPS),
    }
    for kernel, (constants, warps) in kernels.items():
        multiples = set(INTEGERS) - {"regions", "slots", "steps"} - set(constants)
        found = compile_for(kernel, capability, types, constants, warps, 3, multiples)
        assert found.stack == 0
        assert found.registers <= 96
        assert found.shared <= 8192
        assert "atom" not in found.ptx
        gathers_planes = kernel in (triton._piece_kernel, triton._top_piece_kernel) and not in_rows
        assert ("ld.global.v4" in found.ptx) != gathers_planes
        assert ("st.global.v4" in found.ptx) == (kernel is triton._spread_kernel)


@pytest.mark.slow
def test_compiled_for_ones() -> None:
    """A launch turns arguments that are 1 into constants: one channel, one pixel, one region."""
    from tests.kernels._aot import compile_for

    from fewlabel.kernels.regions import triton

    types = dict.fromkeys(("stride_b", "slots"), "i32") | dict.fromkeys(POINTERS, "*i32") | {"best": "*i64"}
    ones = dict.fromkeys(("stride_c", "stride_p", "channels", "pixels", "regions", "steps"), 1)
    tile = triton.sum_tile(False, 1)
    shape = {"PIECE": tile.piece, "GROUP": triton._GROUP, "SLOTS": triton._SLOTS}
    shape |= ones | {"CHANNELS": tile.channels, "PIXELS": tile.pixels, "MEAN": True}
    for kernel in (getattr(triton, name) for name in KERNELS):
        constants = {name: value for name, value in shape.items() if name in kernel.arg_names}
        assert compile_for(kernel, 90, types, constants, tile.warps, 3).stack == 0


@pytest.mark.parametrize("capability", [80, 90])
def test_draws_compile(capability: int) -> None:
    from tests.kernels._aot import compile_for

    from fewlabel.kernels.regions import sample, triton

    types = dict.fromkeys(("perm", "offsets"), "*i32") | dict.fromkeys(("regions", "drawn"), "*i64") | {"key": "i64"}
    types |= dict.fromkeys(("total", "rows", "draws", "pixels", "labels"), "i32")
    constants = {"DRAWS": triton._DRAWS, "IMAGE_BIT": sample.IMAGE_BIT, "REGION_BIT": sample.REGION_BIT}
    constants |= {name: sample.signed(getattr(sample, name)) for name in ("GAMMA", "MIX_A", "MIX_B")}
    found = compile_for(triton._draw_kernel, capability, types, constants, 4, 3)
    assert (found.stack, found.shared) == (0, 0)
    assert found.registers <= 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 48, 130])
def test_on_a_gpu(channels: int, dtype: torch.dtype, layout: torch.memory_format) -> None:
    labels = labels_of(3, 123, 77, most=300).cuda()
    index = region_index(labels, num_labels=301)
    on_cpu = region_index(labels.cpu(), num_labels=301)
    for name, tensor in on_cpu.tensors().items():
        assert torch.equal(index.tensors()[name].cpu(), tensor), name
    features = torch.randn(3, channels, 123, 77, generator=torch.Generator().manual_seed(0))
    compare(features.cuda().to(dtype).contiguous(memory_format=layout), index)


if __name__ == "__main__":
    interpreted()
    interpreted_draws()
