# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels: results through Triton's interpreter, registers and memory through its compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with the CUDA build of torch")

HERE = Path(__file__).parent


def test_interpreted_kernels_equal_the_dense_form() -> None:
    """In a process of its own: the switch must be set before the kernels are defined."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted_contrast.py")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
