# SPDX-License-Identifier: Apache-2.0
"""Data lists, label budgets, labeled and unlabeled streams, and the pre-flight check.

Names load on first use: MONAI costs seconds to import, and many callers need only one small function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewlabel.data.budget import Splits, splits
    from fewlabel.data.datalist import Datalist, read_datalist
    from fewlabel.data.dataset import CachedDataset
    from fewlabel.data.folders import datalist_from_folders
    from fewlabel.data.formats import SUFFIXES
    from fewlabel.data.image_regions import ImageRegions, image_size
    from fewlabel.data.items import TestList, inference_items, test_items, test_list
    from fewlabel.data.labels import find_labels, without_labels
    from fewlabel.data.loader import StreamLoader
    from fewlabel.data.pool import training_images, unlabeled_pool
    from fewlabel.data.preflight import CheckReport, check
    from fewlabel.data.pseudo import pseudo_file, pseudo_items
    from fewlabel.data.ranks import rank_sampler
    from fewlabel.data.readers import AnyReader
    from fewlabel.data.regions import Made, precompute_regions, reading
    from fewlabel.data.sizes import split_by_size

__all__ = [
    "SUFFIXES",
    "AnyReader",
    "CachedDataset",
    "CheckReport",
    "Datalist",
    "ImageRegions",
    "Made",
    "Splits",
    "StreamLoader",
    "TestList",
    "check",
    "datalist_from_folders",
    "find_labels",
    "image_size",
    "inference_items",
    "precompute_regions",
    "pseudo_file",
    "pseudo_items",
    "rank_sampler",
    "read_datalist",
    "reading",
    "split_by_size",
    "splits",
    "test_items",
    "test_list",
    "training_images",
    "unlabeled_pool",
    "without_labels",
]

# No module bears the name of a function: MONAI resolves "fewlabel.data.splits" to a module where there is one.
_HOMES = {
    "budget": ("Splits", "splits"),
    "datalist": ("Datalist", "read_datalist"),
    "dataset": ("CachedDataset",),
    "formats": ("SUFFIXES",),
    "folders": ("datalist_from_folders",),
    "image_regions": ("ImageRegions", "image_size"),
    "items": ("TestList", "inference_items", "test_items", "test_list"),
    "labels": ("find_labels", "without_labels"),
    "loader": ("StreamLoader",),
    "pool": ("training_images", "unlabeled_pool"),
    "preflight": ("CheckReport", "check"),
    "pseudo": ("pseudo_file", "pseudo_items"),
    "ranks": ("rank_sampler",),
    "readers": ("AnyReader",),
    "sizes": ("split_by_size",),
    "regions": ("Made", "precompute_regions", "reading"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    if name == "phantoms":
        return importlib.import_module(f"{__name__}.phantoms")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "phantoms"})
