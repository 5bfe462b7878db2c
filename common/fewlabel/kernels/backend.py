# SPDX-License-Identifier: Apache-2.0
"""Choose the form of an operator (auto | reference | cpu | triton) and fix the precision it computes in."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch

__all__ = ["ENVIRONMENT_VARIABLE", "form", "full_precision", "has_triton", "resolve"]

ENVIRONMENT_VARIABLE = "FEWLABEL_BACKEND"

_NAMES = ("cpu", "torch", "triton", "reference")  # of all operators together

_logger = logging.getLogger(__name__)


def resolve(operator: str, device: torch.device | str, requested: str = "auto", *, available: Sequence[str]) -> str:
    """Return the name of the backend that an operator shall use on a device.

    ``auto`` takes the first entry of ``available``. The environment variable ``FEWLABEL_BACKEND`` replaces ``auto`` but
    never an explicit request. It speaks to all operators at once, of which few have every backend on every device:
    those that have not the one it names take their first, and say so once, at level WARNING. Each distinct choice is
    logged once, at level INFO.

    Args:
        operator: name of the operator, for messages.
        device: where the operands live.
        requested: ``"auto"`` or the name of a backend.
        available: backends that the operator has *for this device*, best first, not empty.

    Returns:
        One entry of ``available``.

    Raises:
        ValueError: the operator has no such backend on this device, or the variable names none that any has; the
            message names those that exist.

    Example:
        >>> resolve("contrast", "cpu", "reference", available=("cpu", "reference"))
        'reference'
    """
    device_type = torch.device(device).type
    if requested == "auto":
        choice = _preferred(operator, device_type, available)
    elif requested in available:
        choice = requested
    else:
        names = ", ".join(["auto", *available])
        raise ValueError(
            f"backend={requested!r}: no such backend for {operator} on {device_type}, expected one of {names}"
        )
    _log_once(logging.INFO, "%s on %s: backend %s", operator, device_type, choice)
    return choice


def _preferred(operator: str, device_type: str, available: Sequence[str]) -> str:
    """The backend that the environment variable names, where the operator has it, else the first."""
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if wanted in ("", "auto"):
        return available[0]
    if wanted in available:
        return wanted
    if wanted not in _NAMES:
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={wanted!r}: expected one of {', '.join(('auto', *_NAMES))}")
    message = f"{ENVIRONMENT_VARIABLE}={wanted}: no such backend for %s on %s, which takes %s"
    _log_once(logging.WARNING, message, operator, device_type, available[0])
    return available[0]


@functools.cache
def _log_once(level: int, message: str, *values: str) -> None:
    _logger.log(level, message, *values)


@functools.cache
def form(operator: str, backend: str) -> ModuleType:
    """Import the form of an operator on first use: Triton is not everywhere, and Numba takes a second.

    Args:
        operator: name of its folder.
        backend: as :func:`resolve` returned it; the form ``torch`` is the module ``portable``.

    Returns:
        The module.
    """
    return importlib.import_module(f"fewlabel.kernels.{operator}.{'portable' if backend == 'torch' else backend}")


@functools.cache
def has_triton() -> bool:
    """Tell whether Triton is installed; it comes with CUDA builds of torch alone.

    Returns:
        The answer of the first call: a search through the path takes longer than a small kernel.
    """
    return importlib.util.find_spec("triton") is not None


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Compute float32 products in float32: no autocast, no TF32, no bfloat16 inside.

    Log-sum-exp of similarities divided by a small temperature turns the 1e-3 of TF32 into wrong gradients. PyTorch's
    switches for reduced products are global; they are changed only where the user has set one, and put back at exit.

    Args:
        device: where the products run.

    Yields:
        Nothing; the precision holds inside the ``with`` block.
    """
    with torch.autocast(torch.device(device).type, enabled=False), _exact_products():
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    """Switch reduced products off through the interface by which the user has switched them on."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch >= 2.9 refuses the old question after a new-style setting
        backends: Any = torch.backends
        with ExitStack() as stack:
            for switches in (backends.cuda.matmul, backends.mkldnn.matmul):
                stack.enter_context(_exact_family(switches))
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _exact_family(switches: Any) -> Iterator[None]:
    """Switch the reduced products of one device family off, in the style of torch >= 2.9."""
    before = switches.fp32_precision
    switches.fp32_precision = "ieee"
    try:
        yield
    finally:
        switches.fp32_precision = before
