# SPDX-License-Identifier: Apache-2.0
"""Compile Triton kernels for GPUs that are not there, and read what they would use."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Resources:
    """What one thread (registers, bytes of stack: what does not fit) and one program (bytes of shared memory) use."""

    registers: int
    stack: int
    shared: int


def resources(kernel: Any, arguments: dict[str, str | int], capability: int, **options: int) -> Resources:
    """Compile a kernel.

    Args:
        kernel: decorated by ``triton.jit``.
        arguments: in order; a type as Triton writes it (``*i32``) or the value of a constant.
        capability: 80, 90, ...
        options: ``num_warps``, ``num_stages``.
    """
    constants = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    signature = {name: value if isinstance(value, str) else "constexpr" for name, value in arguments.items()}
    source = ASTSource(kernel, signature, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [str(_TOOL), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED):(\d+)", text)}
    return Resources(used["REG"], used["STACK"], max(used["SHARED"], built.metadata.shared))
