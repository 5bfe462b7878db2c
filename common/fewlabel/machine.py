# SPDX-License-Identifier: Apache-2.0
"""The machine and what is installed on it, for records of what was measured where."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """Return the version of a package; None where it is not installed.

    Args:
        package: the name under which it is installed, such as scikit-image.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None
