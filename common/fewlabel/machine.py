# SPDX-License-Identifier: Apache-2.0
"""The name of the machine, for records of what was measured where."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
