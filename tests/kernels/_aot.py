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
    return _read(source, capability, {"num_warps": warps, "num_stages": stages})


def resources(kernel: Any, arguments: Mapping[str, str | int], capability: int, **options: int) -> Compiled:
    """Compile for arguments of which nothing is known, alignment included.

    Args:
        kernel: a function under ``triton.jit``.
        arguments: in order; a type as Triton writes it (``*i32``) or the value of a constant.
        capability: of the GPU, 10 major + minor.
        options: ``num_warps``, ``num_stages``, ``maxnreg``.

    Returns:
        What the kernel takes.
    """
    constants = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    signature = {name: value if isinstance(value, str) else "constexpr" for name, value in arguments.items()}
    return _read(ASTSource(kernel, signature, constexprs=constants), capability, options)


def _read(source: Any, capability: int, options: Mapping[str, int]) -> Compiled:
    """Compile and read the report of ptxas."""
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(options))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        command = [str(_DUMP), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED):(\d+)", report)}
    shared = max(used["SHARED"], int(done.metadata.shared))
    return Compiled(used["REG"], used["STACK"], shared, done.asm["ptx"])
