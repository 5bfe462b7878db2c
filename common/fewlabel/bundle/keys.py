# SPDX-License-Identifier: Apache-2.0
"""Top-level keys of a config: which are known, and the words that stand for values.

MONAI accepts a misspelt top-level override in silence (``--epocs 5`` trains with the default) and python-fire hands
``--method_enabled false`` over as the string ``"false"``, which is true. Both cost somebody a week once; not here.
"""

from __future__ import annotations

import difflib
import json
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
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*)")


def repair_words(parser: ConfigParser) -> None:
    """Turn the words true, false, none and null of top-level keys into the values that they name, in place."""
    for key, value in parser.get().items():
        word = value.lower() if isinstance(value, str) else None
        if word in _WORDS:
            # Assigning `parser[key]` would reset the resolver in the middle of an evaluation.
            parser.get()[key] = _WORDS[word]
            parser.ref_resolver.items[key].update_config(_WORDS[word])


def check_keys(config: Mapping[str, Any], config_root: Path) -> None:
    """Refuse top-level keys that nothing reads.

    Args:
        config: the merged config of the run.
        config_root: folder of the config files; its ``train.json`` and ``inference.json`` say which keys exist.

    Raises:
        ConfigError: for an unknown key, with the nearest known name.
    """
    known = CONTRACT_KEYS | _MONAI_KEYS | _property_keys() | _keys_of_files(config_root) | _referenced(config)
    known |= {key for key, value in config.items() if _is_run_id(value)}
    for key in config:
        if key not in known:
            nearest = difflib.get_close_matches(key, sorted(known - {"_meta_"}), n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else "see the table of keys in the bundle's README."
            raise ConfigError(f"unknown key '{key}': {hint}")


def check_run_id(config: Mapping[str, Any], run_id: str) -> None:
    """Refuse a run id that the config does not define, with the nearest name."""
    ids = sorted(key for key, value in config.items() if _is_run_id(value) and key not in ("initialize", "finalize"))
    if run_id not in config:
        nearest = difflib.get_close_matches(run_id, ids, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"this config has {', '.join(ids)}."
        raise ConfigError(f"unknown run id '{run_id}': {hint}")


def _property_keys() -> frozenset[str]:
    ids = [p["id"] for table in (TrainProperties, InferProperties, MetaProperties) for p in table.values()]
    return frozenset(i.replace("#", "::").split("::")[0] for i in ids)


def _keys_of_files(config_root: Path) -> frozenset[str]:
    keys: set[str] = set()
    for name in ("train.json", "inference.json"):
        if (config_root / name).is_file():
            keys |= set(json.loads((config_root / name).read_text(encoding="utf-8")))
    return frozenset(keys)


def _referenced(value: Any) -> frozenset[str]:
    return frozenset(name for text in _strings(value) for name in _REFERENCE.findall(text))


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
