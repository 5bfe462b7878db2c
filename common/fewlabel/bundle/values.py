# SPDX-License-Identifier: Apache-2.0
"""Values of keys: kinds, ranges and words, checked before anything is built.

Without this, ``--batch_size two`` ends in three nested tracebacks, and ``--method_enabled no``, a word that is true,
trains with the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import torch

from fewlabel.errors import ConfigError


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of another kind or out of range; expressions are left to their evaluation.

    Args:
        config: the merged config of the run, words already repaired.

    Raises:
        ConfigError: naming the key, the value and what it should be.
    """
    for key, (holds, words) in _RULES.items():
        value = config.get(key)
        is_expression = isinstance(value, str) and value.startswith(("$", "@", "%"))
        if key in config and not is_expression and not holds(value):
            raise ConfigError(f"{key} is {value!r}: give {words}")
    _check_patch(config)


def _check_patch(config: Mapping[str, Any]) -> None:
    """Refuse a ``spatial_size`` that a network of ``spatial_dims`` and, where they are a list, ``channels`` misses."""
    size, dims, channels = (config.get(key) for key in ("spatial_size", "spatial_dims", "channels"))
    if not isinstance(size, (list, tuple)) or not isinstance(dims, int):
        return
    if len(size) != dims:
        raise ConfigError(f"spatial_size {list(size)} has {len(size)} sizes and spatial_dims is {dims}: change one")
    if config.get("architecture") == "dynunet" and isinstance(channels, (list, tuple)):
        factor = 2 ** (len(channels) - 1)
        if any(n % factor for n in size):
            raise ConfigError(
                f"spatial_size {list(size)} does not fit a dynunet with {len(channels)} channels: give multiples of "
                f"{factor}"
            )


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) in (2, 3) and all(map(_whole(1), value))


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) > 0


def _is_share(value: Any) -> bool:
    return _is_positive(value) and float(value) < 1


def _is_device(value: Any) -> bool:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        return False
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()


def _one_of(*words: str | None) -> tuple[Callable[[Any], bool], str]:
    names = ["null" if word is None else word for word in words]
    return lambda value: value in words, f"{', '.join(names[:-1])} or {names[-1]}"


_FROM_0 = (_whole(0), "a whole number from 0 on")
_FROM_1 = (_whole(1), "a whole number from 1 on")
_SWITCH = (lambda value: value in (True, False), "true or false")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("seed", "split_seed", "num_workers"), _FROM_0),
    **dict.fromkeys(
        (
            *("batch_size", "max_epochs", "epoch_length", "val_interval", "accumulation_steps"),
            *("pretraining_epochs", "point_epochs", "clusters", "tile_px", "max_pixels"),
        ),
        _FROM_1,
    ),
    **dict.fromkeys(("method_enabled", "amp"), _SWITCH),
    "learning_rate": (_is_positive, "a number above 0"),
    "threshold": (_is_share, "a probability between 0 and 1"),
    "spatial_size": (_is_size, "a list of 2 or 3 sizes, such as [96,128]"),
    "label_map": (lambda value: value is None or isinstance(value, Mapping), 'a map such as {"1": 1, "255": 1}'),
    "spatial_dims": (lambda value: value in (2, 3), "2 for pictures or 3 for volumes"),
    "resume": _one_of("auto", "never"),
    "wiring": _one_of("shared", "dual"),
    "pretrain_with": _one_of("contrast", "labels", "both"),
    "recipe_mismatch": _one_of("refuse", "warn"),
    "segment_with": _one_of("otsu", "colors", "pseudo_masks", "points", "final"),
    "proxy_task": _one_of("similarity", "contrastive", "rotation", "simsiam", "mean_value"),
    "map_order": _one_of("minmax_then_mean", "relu_then_minmax"),
    "map_sign": _one_of("density", "hematoxylin", None),
    "cluster_rule": _one_of("darkest", "hottest", "bluest", "released"),
    "cluster_features": _one_of("scalar", "sum", "released"),
    "split": _one_of("none", "watershed", "peaks", None),
    "device": (_is_device, "a device of this machine, such as cpu or cuda:0"),
}
