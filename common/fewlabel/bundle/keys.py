# SPDX-License-Identifier: Apache-2.0
"""Keys of a config: which are known, and the words that stand for values.

MONAI accepts a misspelt top-level override in silence (``--epocs 5`` trains with the default) and python-fire hands
``--method_enabled false`` over as the string ``"false"``, which is true. Both cost somebody a week once; not here.
"""

from __future__ import annotations

import difflib
import inspect
import json
import pydoc
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties

from fewlabel.errors import ConfigError

CONTRACT_KEYS = frozenset(
    "bundle_root dataset_dir datalist label_budget budget_unit split_seed group_key hold_out label_map class_names "
    "output_dir ckpt_dir init_checkpoint device amp seed num_workers cache_rate spatial_size batch_size max_epochs "
    "epoch_length resume method_enabled".split()
)
_MONAI_KEYS = frozenset(
    "_meta_ tracking_uri experiment_name run_name save_execute_config is_not_rank0 displayable_configs "
    "initialize run finalize".split()
)
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*)(?:(?:::|#)(\w+))?")


def repair_words(parser: ConfigParser) -> None:
    """Turn the words true, false, none and null of top-level keys into the values that they name, in place."""
    for key, value in parser.get().items():
        word = value.lower() if isinstance(value, str) else None
        if word in _WORDS:
            # Assigning `parser[key]` would reset the resolver in the middle of an evaluation.
            parser.get()[key] = _WORDS[word]
            parser.ref_resolver.items[key].update_config(_WORDS[word])


def check_keys(config: Mapping[str, Any], config_root: Path) -> None:
    """Refuse keys that nothing reads: at top level, in sections such as ``train``, and as arguments of our components.

    Args:
        config: the merged config of the run.
        config_root: folder of the config files; its ``train.json`` and ``inference.json`` say which keys exist.

    Raises:
        ConfigError: for an unknown key, with the nearest known name.
    """
    files = _keys_of_files(config_root)
    known = _sections([*_property_keys(), *_references(config), *((k, name) for k in files for name in files[k])])
    run_ids = {key for key, value in config.items() if _is_run_id(value)}
    _refuse_unknown("", config, {*CONTRACT_KEYS, *_MONAI_KEYS, *run_ids, *files, *known})
    for key, section in config.items():
        if files.get(key) and _is_section(key, section):
            _refuse_unknown(f"{key}::", section, known[key])
    _check_arguments("", config)


def _is_section(key: str, value: Any) -> bool:
    """Whether a value holds parts of the config; ``label_map`` and its like hold what the user says."""
    return isinstance(value, Mapping) and "_target_" not in value and key not in CONTRACT_KEYS


def _refuse_unknown(prefix: str, keys: Iterable[str], known: Iterable[str]) -> None:
    for key in keys:
        if key not in known:
            nearest = difflib.get_close_matches(key, sorted({*known} - {"_meta_"}), n=1)
            hint = f"did you mean '{prefix}{nearest[0]}'?" if nearest else "see the keys in the bundle's README."
            raise ConfigError(f"unknown key '{prefix}{key}': {hint}")


def _check_arguments(prefix: str, value: Any) -> None:
    """Refuse arguments that a component of this package does not take; those of others are left to MONAI."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _check_arguments(f"{prefix}{key}::", part)
    if isinstance(value, Mapping) and str(value.get("_target_", "")).startswith("fewlabel."):
        parameters = _parameters(value["_target_"])
        if parameters is not None:
            _refuse_unknown(prefix, [k for k in value if not (k.startswith("_") and k.endswith("_"))], parameters)


def _parameters(target: str) -> list[str] | None:
    """Names that a class or function takes; None when it takes any, or cannot be imported, which MONAI will tell."""
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        return None
    parameters = inspect.signature(found).parameters.values() if callable(found) else ()
    return None if not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters) else [p.name for p in parameters]


def check_run_id(config: Mapping[str, Any], run_id: str) -> None:
    """Refuse a run id that the config does not define, with the nearest name."""
    ids = sorted(key for key, value in config.items() if _is_run_id(value) and key not in ("initialize", "finalize"))
    if run_id not in config:
        nearest = difflib.get_close_matches(run_id, ids, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"this config has {', '.join(ids)}."
        raise ConfigError(f"unknown run id '{run_id}': {hint}")


def _property_keys() -> Iterable[tuple[str, str]]:
    """What MONAI's properties name, as (key, key below it or nothing)."""
    for table in (TrainProperties, InferProperties, MetaProperties):
        for entry in table.values():
            key, _, below = entry["id"].replace("::", "#").partition("#")
            yield key, below.partition("#")[0]


def _keys_of_files(config_root: Path) -> dict[str, set[str]]:
    """Top-level keys of the shipped configs, each with the keys of the section that it is."""
    keys: dict[str, set[str]] = {}
    for name in ("train.json", "inference.json"):
        if (config_root / name).is_file():
            for key, value in json.loads((config_root / name).read_text(encoding="utf-8")).items():
                keys.setdefault(key, set()).update(value if isinstance(value, Mapping) else ())
    return keys


def _references(value: Any) -> Iterable[tuple[str, str]]:
    """What strings refer to, as (key, key below it or nothing)."""
    for text in _strings(value):
        yield from ((match[1], match[2] or "") for match in _REFERENCE.finditer(text))


def _sections(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    sections: dict[str, set[str]] = {}
    for key, below in pairs:
        sections.setdefault(key, set()).add(below)
    return sections


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _is_run_id(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.startswith(("$", "@")) for v in value)
    )
