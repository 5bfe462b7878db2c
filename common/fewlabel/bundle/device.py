# SPDX-License-Identifier: Apache-2.0
"""The device a process computes on."""

from __future__ import annotations

import os

import torch


def auto_device() -> torch.device:
    """Return the GPU of this process (``LOCAL_RANK`` under ``torchrun``), or the CPU when there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
