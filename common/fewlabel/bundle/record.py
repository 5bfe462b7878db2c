# SPDX-License-Identifier: Apache-2.0
"""What was run: the contents of ``run.json``."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from fewlabel.bundle.caller import calling_parser
from fewlabel.bundle.identity import identity
from fewlabel.files import write_json
from fewlabel.machine import installed_version, processor

_PACKAGES = ("fewlabel", "monai", "torch", "numpy", "pytorch-ignite", "timm", "scikit-image")


def describe_run(parser: ConfigParser | None = None) -> dict[str, Any]:
    """Return a JSON-ready record of the run: command, merged config, resolved keys, versions, commit, machine.

    Args:
        parser: the parser of the run; None finds the one that evaluates the calling expression.
    """
    parser = calling_parser() if parser is None else parser
    meta = parser.get("_meta_") or {}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "keys": _resolved_keys(parser),
        "config": {k: v for k, v in parser.get().items() if k != "_meta_"},
        "bundle": meta.get("name"),
        "bundle_version": meta.get("version"),
        "versions": {name: installed_version(name) for name in _PACKAGES},
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": _machine(),
    }


def save_record(output_dir: str | Path, parser: ConfigParser | None = None) -> Path:
    """Write ``run.json`` for a run that ends without the training of the network that inference uses.

    Where that network is trained, :class:`fewlabel.handlers.RunFolderHandler` writes it.

    Args:
        output_dir: folder of the record.
        parser: as in :func:`describe_run`.

    Returns:
        The path written.
    """
    parser = calling_parser() if parser is None else parser
    return write_json(Path(output_dir) / "run.json", {**describe_run(parser), "identity": identity(parser)})


def _resolved_keys(parser: ConfigParser) -> dict[str, Any]:
    """The user's keys with expressions such as ``$@bundle_root + '/models'`` worked out; components are left out."""
    keys: dict[str, Any] = {}
    for key, value in parser.get().items():
        if isinstance(value, (int, float, bool, type(None))) or (isinstance(value, str) and value[:1] not in "$@%"):
            keys[key] = value
        elif isinstance(value, str):
            resolved = parser.ref_resolver.resolved_content.get(key)
            if isinstance(resolved, (str, int, float, bool, torch.device)):
                keys[key] = str(resolved) if isinstance(resolved, torch.device) else resolved
    return keys


def _commit() -> str | None:
    """The commit of the source tree that `fewlabel` is imported from; None for an installed wheel."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    name = gpus[0] if gpus else processor()
    return {"name": name, "platform": platform.platform(), "threads": torch.get_num_threads(), "gpus": gpus}
