# SPDX-License-Identifier: Apache-2.0
"""Put a bundle into a MONAI Label app, which opens ``train.json`` and ``inference.json`` alone, without overlays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from fewlabel.errors import ConfigError
from fewlabel.files import write_json

# The server reads models/model.pt of the bundle and its trainings write there, whatever the profile is.
_PLACES = ("output_dir", "ckpt_dir")


def add_to_label_app(
    bundle: str | Path,
    app: str | Path,
    profiles: Sequence[str] = (),
    model: str | Path | None = None,
    studies: str | Path = "",
) -> Path:
    """Copy a bundle into the folder ``model`` of a MONAI Label app, with profiles merged into its two configs.

    Args:
        bundle: folder of the bundle.
        app: folder of an app that serves bundles, made by ``monailabel apps --download --name monaibundle``.
        profiles: names of overlays in ``configs``, such as ``light``; later ones win. Where they put their results
            does not matter here.
        model: weights to serve; None takes those that a training with these profiles has written.
        studies: folder that the server will watch; its images without a label become the default of ``unlabeled_dir``.

    Returns:
        The folder of the copy.

    Raises:
        ConfigError: when a folder, profile or model is not there, or when the app holds the bundle already.
    """
    source, target = Path(bundle).resolve(), Path(app).resolve() / "model" / Path(bundle).resolve().name
    overlays = [_read(source, name) for name in profiles]
    train = _merged(_read(source, "train"), overlays)
    weights = Path(model) if model else _trained(source, overlays)
    if not (Path(app) / "main.py").is_file():
        raise ConfigError(f"'{app}' is no app of MONAI Label: monailabel apps --download --name monaibundle --output .")
    if target.exists():
        raise ConfigError(f"'{target}' exists and may hold a model that was fine-tuned: move it away")
    if model and not weights.is_file():
        raise ConfigError(f"the model '{model}' does not exist: train one, or leave --model out")
    if studies and "displayable_configs" in train:
        train["displayable_configs"]["unlabeled_dir"] = str(Path(studies).resolve())
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("models", "output"))
    write_json(target / "configs" / "train.json", train)
    write_json(target / "configs" / "inference.json", _merged(_read(source, "inference"), overlays))
    if weights.is_file():
        (target / "models").mkdir()
        shutil.copy(weights, target / "models" / "model.pt")
    return target


def _read(bundle: Path, name: str) -> dict[str, Any]:
    file = bundle / "configs" / f"{name}.json"
    if not file.is_file():
        raise ConfigError(f"'{file}' does not exist: choose a bundle, and profiles that it has")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _merged(config: dict[str, Any], overlays: Sequence[dict[str, Any]], places: bool = False) -> dict[str, Any]:
    """Return a config with what the overlays say of its own keys."""
    parser = ConfigParser(config)
    for overlay in overlays:
        for key, value in overlay.items():
            root = key.lstrip("+").replace("#", "::").partition("::")[0]
            if root in config and (places or root not in _PLACES):
                merge_kv(parser, key, value)
    return dict(parser.config)


def _trained(bundle: Path, overlays: Sequence[dict[str, Any]]) -> Path:
    """Return where a training with the overlays leaves its model."""
    parser = ConfigParser(_merged(_read(bundle, "train"), overlays, places=True) | {"bundle_root": str(bundle)})
    return Path(parser.get_parsed_content("ckpt_dir")) / "model.pt"
