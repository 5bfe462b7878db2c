# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels: results through Triton's interpreter, registers and memory through its compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton", reason="Triton comes with the CUDA build of torch")

from tests.kernels._aot import Compiled, compile_for

from fewlabel.kernels.contrast import supcon, triton, triton_kernels, triton_rows

HERE = Path(__file__).parent


def test_interpreted_kernels_equal_the_dense_form() -> None:
    """In a process of its own: the switch must be set before the kernels are defined."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted_contrast.py")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


FORWARD = {"query_labels": "*i32", "key_labels": "*i32", "key_mask": "*i1", "n": "i32", "m": "i32"}
BACKWARD = {"x_labels": "*i32", "y_labels": "*i32", "y_mask": "*i1", "n": "i32", "m": "i32"}
PARTS = {"bf16": 1, "fp16": 1, "fp32": 3}
SHARED = {80: 99, 90: 227}  # KiB that a block may have: 80 stands for consumer cards too


def compiled(
    kind: str, capability: int, channels: int, number: str, bounded: bool, sums: int = 2, **other: int
) -> Compiled:
    """A set against itself; with labels and both sums it is the form that needs most registers."""
    tiles = triton.tiling(kind, channels, PARTS[number], capability, sums)
    constants = {"C": channels, "ROWS": tiles.rows, "COLUMNS": tiles.columns, "SECOND": sums - 1, "MASK": False}
    constants |= {"EXCLUDE_SELF": True, "BOUNDED": bounded, "PARTS": PARTS[number], "UPCAST": False}
    if kind == "forward":
        kernel, types, sides = triton_kernels.lse_kernel, FORWARD, ("query", "key")
    else:
        kernel, types, sides = (
            triton_kernels.gradient_kernel,
            {**BACKWARD, "gradient": f"*{number}"},
            ("x_rows", "y_rows"),
        )
        constants |= {"FIRST": True, "X": True, "Y": True, "SCALED": number == "fp16"}
    constants |= other
    types = {**types, "scale": "fp32", **dict.fromkeys(sides, "*bf16" if number == "fp32" else f"*{number}")}
    return compile_for(kernel, capability, types, constants, tiles.warps, tiles.stages)


def check(kind: str, capability: int, channels: int, number: str, bounded: bool, sums: int = 2, **other: int) -> None:
    found = compiled(kind, capability, channels, number, bounded, sums, **other)
    assert found.stack <= 16, "registers are spilled"
    assert found.registers <= 255
    assert found.shared <= SHARED[capability] * 1024
    assert ("wgmma.mma_async" if capability == 90 else "mma") in found.ptx


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("capability", [80, 90])
def test_compiled_kernels_do_not_spill(capability: int, kind: str) -> None:
    for sums in (1, 2):
        check(kind, capability, 128, "bf16", True, sums)


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("capability", [80, 90])
def test_a_set_against_another_under_a_mask_does_not_spill(capability: int, kind: str) -> None:
    """As contrast of regions needs it; and with the second sum over the same label, as supervised contrast."""
    for side in (True, False) if kind == "backward" else (True,):
        sides = {"X": side, "Y": not side} if kind == "backward" else {}
        check(kind, capability, 64, "fp16", True, 2, MASK=True, EXCLUDE_SELF=False, **sides)
    check(kind, capability, 128, "bf16", False, 2, SECOND=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "channels"), [*(("bf16", c) for c in (16, 64, 128, 256)), ("fp32", 16), ("fp32", 64), ("fp32", 128)]
)
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("capability", [80, 90])
def test_every_tiling_compiles_without_spills(
    capability: int, kind: str, channels: int, bounded: bool, number: str
) -> None:
    for sums in (1, 2):
        check(kind, capability, channels, number, bounded, sums)


def test_shared_memory_and_registers_of_the_common_case() -> None:
    """Two blocks of the forward kernel fit an H100 at once; with a mask, of half the threads, three."""
    found = compiled("forward", 90, 128, "bf16", True, sums=1)
    assert found.shared <= 96 * 1024
    assert found.registers <= 128
    found = compiled("forward", 90, 128, "bf16", True, sums=2)
    assert found.shared <= 68 * 1024
    assert found.registers <= 168


@pytest.mark.parametrize("capability", [80, 90])
def test_small_kernels_need_few_registers(capability: int) -> None:
    """Those that prepare rows and gains wait for memory: many of their programs must fit at once."""
    strides = {
        "stride_b": "i32",
        "stride_n": "i32",
        "stride_c": "i32",
        "rows": "i32",
        "channels": "i32",
        "count": "i32",
    }
    parts = compile_for(
        triton_rows.parts_kernel, capability, {**strides, "parts": "*bf16"}, {"C": 64, "NUMBERS": 1024}, 4, 1
    )
    scalars = {"stride_b": "i32", "stride_n": "i32", "n": "i32", "count": "i32", "factor": "fp32"}
    constants = {"BOUNDED": True, "SCALED": True, "NUMBERS": 256}
    gains = compile_for(triton_kernels.gain_kernel, capability, scalars, constants, 4, 1)
    for found in (parts, gains):
        assert found.stack == 0
        assert found.registers <= 64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("unit_norm", [True, None])
@pytest.mark.parametrize("variant", ["out", "in"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.02)])
def test_supcon_on_a_gpu(dtype: torch.dtype, tolerance: float, variant: str, unit_norm: bool | None) -> None:
    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(2, 3001, 60, generator=generator), dim=-1).cuda().to(dtype)
    labels = torch.randint(0, 7, (2, 3001), generator=generator).cuda()
    results = []
    for side, backend in ((z, "triton"), (z, "triton"), (z.double(), "reference")):
        leaf = side.clone().requires_grad_()
        loss = supcon(leaf, labels, variant=variant, unit_norm=unit_norm, backend=backend)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    (value, gradient), (exact, exact_gradient) = results[0], results[2]
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (gradient.double() - exact_gradient).abs().max() <= tolerance * exact_gradient.abs().max()
