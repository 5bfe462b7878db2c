# SPDX-License-Identifier: Apache-2.0
"""Drawn data sets with exact masks, so that every bundle runs on any machine without a download.

A set is drawn once into a cache folder and found there afterwards. To add one for another method, write a module with a
``write_dataset(folder, seed)`` and a ``VERSION``, and name it in :data:`PHANTOMS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from fewlabel.errors import ConfigError
from fewlabel.files import cache_dir

__all__ = ["PHANTOMS", "folder"]

PHANTOMS = {
    "ct_abdomen": "fewlabel.data.phantoms.ct_abdomen",
    "endoscopy": "fewlabel.data.phantoms.endoscopy",
    "histology": "fewlabel.data.phantoms.histology",
    "immunohistochemistry": "fewlabel.data.phantoms.immunohistochemistry",
}
"""Name of a set to the module that draws it."""


def folder(name: str = "endoscopy", seed: int = 0) -> Path:
    """Return the folder of a drawn data set; the first call draws it, which takes seconds.

    Args:
        name: a key of :data:`PHANTOMS`.
        seed: which draw, at least 0.

    Returns:
        A folder with ``datalist.json``, ``images`` and ``labels``, complete even when several processes ask at once.

    Raises:
        ConfigError: an unknown name, or a cache that cannot be written.
    """
    if name not in PHANTOMS:
        raise ConfigError(f"phantom data '{name}' is unknown: choose one of {', '.join(PHANTOMS)}.")
    module = importlib.import_module(PHANTOMS[name])
    place = cache_dir() / "phantoms" / f"{name}-{module.VERSION}-seed{seed}"
    return Path(module.write_dataset(place, seed=seed))
