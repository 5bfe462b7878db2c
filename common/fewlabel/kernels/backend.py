# SPDX-License-Identifier: Apache-2.0
"""Choose the form of an operator (auto | reference | cpu | triton) and fix the precision it computes in."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

__all__ = ["ENVIRONMENT_VARIABLE", "full_precision", "resolve"]

ENVIRONMENT_VARIABLE = "FEWLABEL_BACKEND"

_logger = logging.getLogger(__name__)


def resolve(operator: str, device: torch.device | str, requested: str = "auto", *, available: Sequence[str]) -> str:
    """Return the name of the backend that an operator shall use on a device.

    ``auto`` takes the first entry of ``available``; the environment variable ``FEWLABEL_BACKEND`` replaces ``auto``
    but never an explicit request. Each distinct choice is logged once, at level INFO.

    Args:
        operator: name of the operator, for messages.
        device: where the operands live.
        requested: ``"auto"`` or the name of a backend.
        available: backends that the operator has *for this device*, best first, not empty.

    Returns:
        One entry of ``available``.

    Raises:
        ValueError: the operator has no such backend on this device; the message names those that exist.

    Example:
        >>> resolve("contrast", "cpu", "reference", available=("cpu", "reference"))
        'reference'
    """
    device_type = torch.device(device).type
    source = "backend"
    if requested == "auto":
        requested = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() or "auto"
        source = ENVIRONMENT_VARIABLE
    choice = available[0] if requested == "auto" else requested
    if choice not in available:
        names = ", ".join(["auto", *available])
        raise ValueError(
            f"{source}={choice!r}: no such backend for {operator} on {device_type}, expected one of {names}"
        )
    _log_once(operator, device_type, choice)
    return choice


@functools.cache
def _log_once(operator: str, device_type: str, choice: str) -> None:
    _logger.info("%s on %s: backend %s", operator, device_type, choice)


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
