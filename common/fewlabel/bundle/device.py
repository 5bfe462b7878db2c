# SPDX-License-Identifier: Apache-2.0
"""The device a process computes on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def auto_device() -> torch.device:
    """Return the GPU of this process (``LOCAL_RANK`` under ``torchrun``), or the CPU when there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def processor_name() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
