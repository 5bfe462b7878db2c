# SPDX-License-Identifier: Apache-2.0
"""Compile loops over pixels with Numba: without the GIL, so that threads run side by side, and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Return the function compiled to machine code on first use with each set of argument types.

    Arithmetic is as written: no reordering, no fused multiply-add. Machine code is kept beside the source or, where
    that is read-only, in the user's cache, and read by the next process.

    Args:
        function: loops over NumPy arrays and numbers, in the part of Python that Numba knows.

    Returns:
        The compiled function, to be called like the original; it releases the GIL while it runs.

    Example:
        >>> @compiled
        ... def total(n: int) -> int:
        ...     s = 0
        ...     for i in range(n):
        ...         s += i
        ...     return s
        >>> total(5)
        10
    """
    jit: Callable[..., _F] = numba.njit
    try:
        return jit(function, nogil=True, cache=True)
    except RuntimeError:  # no folder to write to, or no file to look at (an interactive session)
        return jit(function, nogil=True)
