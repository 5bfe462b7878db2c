# SPDX-License-Identifier: Apache-2.0
"""The first thing every workflow does: say in one sentence what is wrong, before anything is built or written."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism, version_geq

from fewlabel.bundle.caller import calling_parser, calling_workflow, loading
from fewlabel.bundle.identity import differing_keys, identity, own_data
from fewlabel.bundle.keys import check_keys, check_run_id, repair_words
from fewlabel.bundle.values import check_values
from fewlabel.errors import ConfigError
from fewlabel.networks.weights import misfit

logger = logging.getLogger(__name__)


def start() -> None:
    """Check the config that calls this (as first item of ``initialize``) and seed the run.

    In order: the words ``true``, ``false`` and ``null`` of the command line become values; unknown keys and run ids
    are refused, and values of the wrong kind; installed versions are compared with the bundle's ``metadata.json``;
    ``bundle_root`` must be a bundle and the output folders writable; a ``ckpt_dir`` that belongs to another config is
    refused; everything is seeded. Under ``monai.bundle.load``, which runs nothing, the weights must fit the network
    instead of what comes after the versions.

    Raises:
        ConfigError: one sentence and exit code 1 for whatever is wrong.
    """
    parser, workflow = calling_parser(), calling_workflow()
    repair_words(parser)
    if workflow is not None:
        workflow.run_id = workflow.run_id or "run"  # MONAI Label's panel has an empty field; "" would run everything
        check_keys(parser.get(), Path(workflow.config_root_path))
        check_run_id(parser.get(), workflow.run_id)
    check_values(parser.get())
    check_versions(parser.get("_meta_") or {})
    if (variables := loading()) is not None:
        check_loaded(parser, variables)
        return
    check_bundle_root(parser, workflow)
    training = workflow is not None and _trains(parser, workflow.run_id)
    for key in ("output_dir", "ckpt_dir") if training else ("output_dir",):
        if key in parser:
            check_writable(Path(parser.get_parsed_content(key)), key)
    if training and parser.get("resume") == "auto" and own_data(parser):
        check_checkpoint(Path(parser.get_parsed_content("ckpt_dir")), identity(parser))
    set_determinism(seed=int(parser.get("seed", 0)))


def check_versions(meta: dict[str, Any]) -> None:
    """Compare installed packages with ``minimum_versions`` and the tested versions of ``metadata.json``.

    Args:
        meta: content of ``metadata.json``.

    Raises:
        ConfigError: for a package older than the minimum, with the command that updates it.
    """
    tested = {"monai": meta.get("monai_version"), "torch": meta.get("pytorch_version")}
    for package, minimum in meta.get("minimum_versions", {}).items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            raise ConfigError(f"{package} is not installed: pip install '{package}>={minimum}'") from None
        if not version_geq(installed.split("+")[0], minimum):
            raise ConfigError(f"{package} {installed} is older than {minimum}: pip install -U '{package}>={minimum}'")
        ceiling = tested.get(package)
        if ceiling and not version_geq(ceiling, installed.split("+")[0]):
            logger.info("%s %s is newer than the tested %s", package, installed, ceiling)


def check_bundle_root(parser: ConfigParser, workflow: ConfigWorkflow | None) -> None:
    """Refuse a ``bundle_root`` that is not the folder of a bundle.

    Args:
        parser: holds the key.
        workflow: knows where the configs lie, for the remedy; None outside of a workflow.

    Raises:
        ConfigError: naming ``--bundle_root`` and the folder that is probably meant.
    """
    root = Path(parser.get_parsed_content("bundle_root"))
    if (root / "configs" / "metadata.json").is_file():
        return
    config_root = Path(workflow.config_root_path) if workflow is not None else Path("configs")
    likely = config_root.resolve().parent
    raise ConfigError(f"bundle_root '{root}' holds no configs/metadata.json: add --bundle_root '{likely}'")


def check_loaded(parser: ConfigParser, variables: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit the network, of which ``monai.bundle.load`` copies what fits and says nothing.

    Not refused is what the caller has a say in by ``copy_model_args``.

    Args:
        parser: its ``network_def`` is what will be loaded into; MONAI builds no second one.
        variables: of ``monai.bundle.load``.

    Raises:
        ConfigError: naming the file, and ``net_override`` as the way to the network that it was trained with.
    """
    weights, nested = variables.get("model_dict"), variables.get("key_in_ckpt")
    if nested is not None and isinstance(weights, Mapping):
        weights = weights.get(nested)
    if "network_def" not in parser or not isinstance(weights, Mapping) or variables.get("copy_model_args"):
        return
    wrong = misfit(parser.get_parsed_content("network_def"), weights)
    if wrong:
        raise ConfigError(
            f"'{variables.get('full_path')}' does not fit the network ({wrong}), and what it does not fill would stay "
            "random: it was trained with another profile, so give load() a net_override of what that profile changes "
            "in network_def"
        )


def check_writable(folder: Path, key: str) -> None:
    """Make sure that files can be made in ``folder``, creating it when it is missing.

    Args:
        folder: where the run will write.
        key: the config key that names the folder, for the message.

    Raises:
        ConfigError: when it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise ConfigError(f"cannot write to {key} '{folder}' ({error.strerror}): choose another --{key}") from None


def check_checkpoint(ckpt_dir: Path, ours: dict[str, Any]) -> None:
    """Refuse to resume a run of another config.

    Args:
        ckpt_dir: folder that may hold ``resume/config.json`` of an earlier run.
        ours: :func:`~fewlabel.bundle.identity.identity` of this run.

    Raises:
        ConfigError: naming the keys that differ and the two ways on.
    """
    file = ckpt_dir / "resume" / "config.json"
    if not file.is_file():
        return
    different = differing_keys(ours, json.loads(file.read_text(encoding="utf-8")))
    if different:
        raise ConfigError(
            f"ckpt_dir '{ckpt_dir}' holds a run of another config, which differs in {', '.join(different)}: "
            "choose another --ckpt_dir, or start over with --resume never (the old run is kept in previous/)"
        )


def _trains(parser: ConfigParser, run_id: str) -> bool:
    """Whether the run id trains; evaluate.json points `run` and `training` at `evaluating`."""
    return "train" in parser and run_id != "evaluating" and parser.get(run_id) != parser.get("evaluating", object())
