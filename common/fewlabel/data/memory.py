# SPDX-License-Identifier: Apache-2.0
"""How much memory is free for this process, how much it has taken, and how much a data item takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_UNKNOWN = 4 * 2**30


def free_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that can be taken without swapping or being killed, shared among the processes of ``torchrun``.

    The smaller of what the machine has available and what its container may still use; 4 GiB where neither is known.

    Args:
        proc: the kernel's process folder.
        cgroup: the container's control group.
    """
    limits = [n for n in (_available(proc), _container(cgroup)) if n is not None]
    return max(0, min(limits, default=_UNKNOWN)) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _available(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return _from_sysconf()


def _from_sysconf() -> int | None:
    """Half of the installed memory, where the system tells only that (macOS)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _container(cgroup: Path) -> int | None:
    """What the container may still use; memory that only caches files counts as free."""
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        lines = (cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
        return limit - used + sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, IndexError):  # "max" is no number: no limit
        return None


def peak_bytes() -> int:
    """Return the most memory that this process has held at a time; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def item_bytes(item: Any) -> int:
    """Return the bytes of the tensors and arrays in a nested item.

    Args:
        item: dictionaries, lists and tuples of tensors, arrays and whatever else.

    Example:
        >>> item_bytes({"image": torch.zeros(3, 4), "parts": [np.zeros(2, np.uint8)], "name": "a"})
        50
    """
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size()
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(item_bytes(part) for part in item.values())
    return sum(item_bytes(part) for part in item) if isinstance(item, (list, tuple)) else 0
