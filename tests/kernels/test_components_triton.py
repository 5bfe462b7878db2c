# SPDX-License-Identifier: Apache-2.0
"""The GPU form of connected components where there is no GPU: interpreted, and compiled ahead of time.

Triton decides between the two when it is imported, so the interpreted part is this file, run by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

SHAPES = (((2, 3, 5), 4), ((4, 5), 8), ((3, 40), 8), ((2, 2, 3, 3), 6), ((2, 3, 4), 18), ((2, 3, 4), 26))


def compare() -> None:
    """Every kernel on tiny images, rows longer than a program among them."""
    from fewlabel.kernels.components import connected_components, fill_holes, largest_component, triton

    triton._MOST = 32
    generator = torch.Generator().manual_seed(0)
    for number, (shape, connectivity) in enumerate(SHAPES):
        values = torch.randint(0, 3, shape, generator=generator)
        got, expected = (
            connected_components(values, connectivity, by_label=number % 2 == 0, backend=backend)
            for backend in ("triton", "reference")
        )
        assert torch.equal(got[0], expected[0]), (shape, connectivity, values)
        assert torch.equal(got[1], expected[1]), (shape, connectivity, values)
    values = torch.tensor([[3, 3, 3, 0], [3, 0, 3, 1], [3, 3, 3, 1]])
    for operator in (fill_holes, largest_component):
        assert torch.equal(operator(values, 4, backend="triton"), operator(values, 4, backend="cpu"))


@pytest.mark.slow
def test_interpreted() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("values", ["u8", "i64"])
def test_compiled_for(capability: int, values: str) -> None:
    from tests.kernels._aot import resources

    from fewlabel.kernels.components import triton as form

    space = {"depth": "i32", "height": "i32", "width": "i32", "BLOCK": form._MOST}
    rows = {"ABOVE": 1, "BEFORE": 1, "DIAGONAL": 1}
    kernels = {
        form._open_kernel: {"values": f"*{values}", "parent": "*i32"} | space,
        form._merge_kernel: {"values": f"*{values}", "parent": "*i32"} | space | rows,
        form._flatten_kernel: {"parent": "*i32", "is_root": "*i8"} | space,
        form._number_kernel: {"parent": "*i32", "ranks": "*i32", "before": "*i32", "labels": "*i32"} | space,
    }
    for kernel, arguments in kernels.items():
        used = resources(kernel, arguments, capability, num_warps=form._MOST // 32, maxnreg=form._REGISTERS)
        assert used.stack == 0
        assert used.registers <= 64
        assert used.shared <= 1024


if __name__ == "__main__":
    compare()
