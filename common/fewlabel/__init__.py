# SPDX-License-Identifier: Apache-2.0
"""Segment medical images when labels are scarce: the package that the fewlabel MONAI bundles stand on.

Sub-packages load on first use, so that ``import fewlabel`` is instant, touches no GPU, and a bundle
config needs nothing but ``"$import fewlabel"`` to write ``$fewlabel.bundle.start()``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = (
    "bundle",
    "data",
    "engines",
    "errors",
    "evidence",
    "handlers",
    "hub",
    "kernels",
    "losses",
    "metrics",
    "networks",
    "pseudolabels",
    "report",
    "superpixels",
    "transforms",
)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
