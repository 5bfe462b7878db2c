# SPDX-License-Identifier: Apache-2.0
"""Operators with an oracle, a fast CPU form and, where one pays, a GPU kernel; one folder each.

``reference`` is dense and obvious, ``cpu`` is the fast form in ordinary PyTorch (it runs on every device), ``triton``
exists only where a GPU kernel pays. :mod:`fewlabel.kernels.backend` chooses, ``FEWLABEL_BACKEND`` overrides.
Operators load on first use: ``fewlabel.kernels.contrast.info_nce`` works after ``import fewlabel``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["backend", "components", "contrast", "distance", "felzenszwalb", "kmeans", "regions"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
