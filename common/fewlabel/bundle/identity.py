# SPDX-License-Identifier: Apache-2.0
"""What makes two runs the same run: the raw config without places and machinery, plus the split."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

from fewlabel.bundle.caller import calling_parser

# Changing these neither changes what is learned up to an epoch nor forbids to continue from it.
_PLACES = frozenset("_meta_ imports package bundle_root dataset_dir datalist output_dir ckpt_dir stages_dir".split())
_MACHINERY = frozenset(
    "device num_workers cache_rate resume max_epochs displayable_configs validate val_interval check tensorboard "
    "rank backend tracking_uri experiment_name run_name save_execute_config is_not_rank0 stage_examples".split()
)
_TRAIN_MACHINERY = ("train::handlers", "train::trainer", "train::inferer", "train::dataset::_target_")


def identity(parser: ConfigParser | None = None) -> dict[str, Any]:
    """Return the flat, JSON-ready identity of a run: two runs with equal identities train the same weights.

    Args:
        parser: the parser of the run; None finds the one that evaluates the calling expression.

    Returns:
        ``{"label_budget": 8, "train::method::temperature": "@temperature", ..., "splits": "sha256..."}``: the raw
        values of every leaf but paths, device, workers, handlers, validation and duration, the number of processes,
        and the fingerprint of the split, which holds the drawn items relative to the data set.
    """
    parser = calling_parser() if parser is None else parser
    leaves: dict[str, Any] = {}
    for key, value in parser.get().items():
        if key not in _PLACES | _MACHINERY and not _runs(value):
            leaves.update(_flatten(key, value))
    leaves = {k: v for k, v in leaves.items() if not k.startswith(_TRAIN_MACHINERY)}
    leaves["processes"] = int(os.environ.get("WORLD_SIZE", 1))  # each draws items of its own: torchrun's count matters
    if "splits" in parser:
        leaves = {k: v for k, v in leaves.items() if not k.startswith("splits::")}
        split = parser.get_parsed_content("splits")
        leaves["splits"] = split.fingerprint() if split is not None else None
    return leaves


def own_data(parser: ConfigParser | None = None) -> bool:
    """Whether the training list is the bundle's own split, not one put in from outside (as MONAI Label does).

    Args:
        parser: as in :func:`identity`.
    """
    parser = calling_parser() if parser is None else parser
    return "@splits" in str(parser.get("train::dataset::data", ""))


def differing_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two identities differ, sorted; an old one may hold keys that no longer count."""
    missing = object()
    counting = [k for k in {*ours, *theirs} if k.split("::")[0] not in _PLACES | _MACHINERY]
    return sorted(k for k in counting if ours.get(k, missing) != theirs.get(k, missing))


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for name, item in value.items() for k, v in _flatten(f"{key}::{name}", item).items()}
    return {key: value if isinstance(value, (str, int, float, bool, list, type(None))) else repr(value)}


def _runs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(str(v).startswith(("$", "@")) for v in value)
