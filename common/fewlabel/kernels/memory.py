# SPDX-License-Identifier: Apache-2.0
"""Fresh memory at the speed of memory: huge pages for large results on a CPU."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

from torch import Tensor

__all__ = ["with_huge_pages"]

_LEAST_BYTES = 4 * 2**20


def with_huge_pages(fresh: Tensor) -> Tensor:
    """Ask the system to back a large, not yet written tensor with huge pages.

    A large tensor is new address space: the first write to each page of 4 KiB faults, which takes several times as
    long as the write. One fault per 2 MiB does not show. NumPy asks for its arrays; PyTorch does so only where
    ``THP_MEM_ALLOC_ENABLE`` is set. It is a hint: on other systems than Linux, and where the system refuses, nothing
    happens. Only whole pages inside of the tensor's own storage are named.

    Args:
        fresh: just allocated; of a CPU and at least 4 MiB, else nothing happens.

    Returns:
        The same tensor.
    """
    if fresh.nbytes >= _LEAST_BYTES and fresh.device.type == "cpu":
        storage = fresh.untyped_storage()
        start = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (storage.data_ptr() + storage.nbytes() - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if (advise := _madvise()) is not None:
            advise(start, length, mmap.MADV_HUGEPAGE)
    return fresh


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's function, where it has one."""
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
