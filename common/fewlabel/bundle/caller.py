# SPDX-License-Identifier: Apache-2.0
"""Find the MONAI workflow and parser that are evaluating the config at this moment.

An expression in a config cannot name the config that it stands in, and the command line is not there when the
workflow is made from Python. But whoever evaluates the expression is on the call stack: the one place that is right
for the command line, ``ConfigWorkflow(...)``, overlays, ``torchrun`` and several threads alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow, load

T = TypeVar("T")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _caller(kind: type[T]) -> T | None:
    owners: Iterator[Any] = (frame.f_locals.get("self") for frame in _frames())
    return next((owner for owner in owners if isinstance(owner, kind)), None)


def calling_workflow() -> ConfigWorkflow | None:
    """Return the workflow whose config is being evaluated, or None outside of one (a bare ``ConfigParser``)."""
    return _caller(ConfigWorkflow)


def in_workflow() -> bool:
    """Whether a workflow evaluates the config; else somebody borrows its parts, as MONAI Label does for inference."""
    return calling_workflow() is not None


def calling_parser() -> ConfigParser:
    """Return the parser whose config is being evaluated.

    Raises:
        RuntimeError: when called from anywhere else than an expression of a config.
    """
    parser = _caller(ConfigParser)
    if parser is None:
        raise RuntimeError("this function is called by an expression of a bundle config, not from Python")
    return parser


def run_of(item: str) -> Callable[[], Any]:
    """Return a function that builds a part of the calling config and runs it: a stage that is done builds nothing.

    Args:
        item: id of the part, such as ``pretrain::trainer``; it has a ``run()``.
    """
    parser = calling_parser()
    return lambda: parser.get_parsed_content(item).run()


def loading() -> Mapping[str, Any] | None:
    """Return the variables of ``monai.bundle.load`` when it evaluates the config, or None.

    It wants the network, from any folder, and runs nothing. Its variables are the only place that tells which weights
    it read; a later MONAI may name them otherwise.
    """
    return next((frame.f_locals for frame in _frames() if frame.f_code is load.__code__), None)
