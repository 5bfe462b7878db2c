# SPDX-License-Identifier: Apache-2.0
"""Load weights from a file without un-pickling code, and say what did not fit."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewlabel.errors import ConfigError

logger = logging.getLogger(__name__)

# What torch.load and safetensors raise for a damaged file or one that would need code; torch's own message would
# advise to run that code.
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError)


def read_weights(path: str | Path, key: str) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` or a weights-only ``.pt`` file.

    Args:
        path: the file. A dictionary that nests the weights under ``model``, ``network`` or ``state_dict`` is
            unwrapped, and the prefix ``module.`` of distributed training is dropped.
        key: the config key that names the file, for the messages.

    Returns:
        Names to tensors, on the CPU.

    Raises:
        ConfigError: when the file is missing, unreadable, or holds anything but tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{key} '{path}' does not exist: give a .pt or .safetensors file")
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ConfigError(
            f"{key} '{path}' cannot be read as weights only ({reason}): it is damaged or holds code; give a plain "
            "state dict"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{key} '{path}' holds a {type(content).__name__}: give a plain state dict")
    for name in ("model", "network", "state_dict"):
        content = content[name] if isinstance(content.get(name), dict) else content
    return {k.removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}


def load_weights(module: nn.Module, path: str | Path, key: str, strict: bool = False) -> list[str]:
    """Copy the weights of a file into a module, those whose name and shape fit.

    Args:
        module: receives the weights, on whatever device it is.
        path: as in :func:`read_weights`.
        key: the config key that names the file, for the messages.
        strict: demand that every weight of the module is in the file, and nothing else.

    Returns:
        The names of the module that the file did not fill.

    Raises:
        ConfigError: when nothing fits, or, with ``strict``, when anything is left over on either side.
    """
    fitting, left, unused = _matched(module, weights := read_weights(path, key))
    if not fitting or (strict and (left or unused)):
        raise ConfigError(
            f"{key} '{path}' does not fit the network ({misfit(module, weights)}): it belongs to another architecture "
            f"or profile, so give the overlays that it was trained with or another {key}"
        )
    module.load_state_dict(fitting, strict=False)
    if left or unused:
        logger.warning("%s '%s': %s; %s", key, path, _some(left, "not filled"), _some(unused, "of the file not used"))
    return left


def misfit(module: nn.Module, weights: Mapping[str, Any]) -> str:
    """Say how far a state dict is from filling a module; empty when it fills it and holds nothing else.

    Args:
        module: what the weights are meant for; it stays as it is.
        weights: names to tensors.

    Example:
        >>> misfit(nn.Linear(2, 1), {"weight": torch.zeros(1, 2), "scale": torch.zeros(1)})
        '1 of 2 tensors; not bias'
        >>> misfit(nn.Linear(2, 1), nn.Linear(2, 1).state_dict())
        ''
    """
    fitting, left, unused = _matched(module, weights)
    if fitting and not left and not unused:
        return ""
    return f"{len(fitting)} of {len(fitting) + len(left)} tensors; not {[*left, *unused, 'anything'][0]}"


def _matched(module: nn.Module, weights: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """What fits by name and shape, what of the module stays empty, and what of the weights has no place."""
    ours = module.state_dict()
    fitting = {k: v for k, v in weights.items() if k in ours and isinstance(v, Tensor) and ours[k].shape == v.shape}
    return fitting, [k for k in ours if k not in fitting], [k for k in weights if k not in fitting]


def _some(names: list[str], what: str) -> str:
    """Count tensors and name the first few."""
    return f"{len(names)} tensors {what}" + (f" ({', '.join(names[:3])} ...)" if names else "")


def fingerprint(module: nn.Module) -> str:
    """Return a digest of all weights and buffers of a module: equal where names, types, shapes and values are.

    Args:
        module: on whatever device.
    """
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
