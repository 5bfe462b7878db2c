# SPDX-License-Identifier: Apache-2.0
"""The GPU form of the nearest seed where there is no GPU: interpreted, and compiled ahead of time.

Triton decides between the two when it is imported, so the interpreted part is this file, run by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")


def compare() -> None:
    """Axes that are and are not contiguous, tiles that do not divide them, an image without seeds."""
    from fewlabel.kernels.distance import nearest_seed

    generator = torch.Generator().manual_seed(0)
    for shape, spacing in (((2, 7, 35), (1.0, 1.0)), ((3, 2, 5, 9), (0.7, 0.31, 1.3)), ((1, 6), (1.0, 2.0))):
        seeds = torch.rand(shape, generator=generator) < 0.1
        seeds[0] = False
        got, expected = (
            nearest_seed(seeds, len(spacing), spacing=spacing, backend=backend) for backend in ("triton", "torch")
        )
        assert torch.equal(got[0], expected[0]), (shape, spacing, seeds)
        assert torch.equal(got[1], expected[1]), (shape, spacing, seeds)


def test_interpreted() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("lines", [1, 32])
def test_compiled_for(capability: int, lines: int) -> None:
    from tests.kernels._aot import resources

    from fewlabel.kernels.distance import triton as form

    arrays = {"cost": "*fp64", "index": "*i32", "steps": "*fp64", "cost_out": "*fp64", "index_out": "*i32"}
    tile = {"n": "i32", "inner": "i32", "PLACES": form._TILE // lines, "LINES": lines}
    used = resources(form._axis_kernel, arrays | tile, capability, num_warps=4)
    assert used.stack == 0
    assert used.registers <= 128
    assert used.shared <= 16 * 1024


if __name__ == "__main__":
    compare()
