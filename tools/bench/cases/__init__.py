# SPDX-License-Identifier: Apache-2.0
"""The registry: every module of this package that defines ``CASE`` is a case, found by its file name."""

from __future__ import annotations

import importlib
import pkgutil

from tools.bench.case import Case


def names() -> list[str]:
    """Return the names of all cases."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Case:
    """Return one case.

    Args:
        name: file name of the case without suffix.

    Raises:
        ValueError: there is no such case; the message names those that exist.
    """
    if name not in names():
        raise ValueError(f"no case {name!r} in tools/bench/cases, expected one of {', '.join(['all', *names()])}")
    case: Case = importlib.import_module(f"{__name__}.{name}").CASE
    return case
