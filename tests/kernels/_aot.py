# SPDX-License-Identifier: Apache-2.0
"""Compile a Triton kernel for a GPU that is not here, and read what ptxas made of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with the CUDA build of torch")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

_DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Compiled:
    """Figures of a compiled kernel.

    Attributes:
        registers: per thread.
        stack: bytes per thread; spilled registers lie there.
        shared: bytes of shared memory of a block.
        ptx: the assembly, in which matrix instructions can be looked for.
    """

    registers: int
    stack: int
    shared: int
    ptx: str


def compile_for(
    kernel: Any,
    capability: int,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    warps: int,
    stages: int,
    multiples: Collection[str] = (),
) -> Compiled:
    """Compile.

    Args:
        kernel: a function under ``triton.jit``.
        capability: of the GPU, 10 major + minor.
        types: Triton's type of each argument, ``"*fp32"`` where it is not named; pointers are aligned to 16 bytes.
        constants: values of the compile-time arguments.
        warps: of a block.
        stages: of the pipeline.
        multiples: integer arguments that are multiples of 16, as a launch would find out.

    Returns:
        What the kernel takes.
    """
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    kinds = enumerate(signature.items())
    aligned = [(at,) for at, (name, kind) in kinds if kind.startswith("*") or name in multiples]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs=dict(constants),
        attrs={at: [["tt.divisibility", 16]] for at in aligned},
    )
    options = {"num_warps": warps, "num_stages": stages}
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        command = [str(_DUMP), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    return Compiled(int(found[1]), int(found[2]), int(done.metadata.shared), done.asm["ptx"])
