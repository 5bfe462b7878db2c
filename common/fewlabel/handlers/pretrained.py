# SPDX-License-Identifier: Apache-2.0
"""Pre-trained weights with the recipe of the images that they know, and the comparison before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from fewlabel.errors import ConfigError
from fewlabel.files import atomic
from fewlabel.networks.dense import DenseUNet
from fewlabel.networks.dual import DualUNet
from fewlabel.networks.twin import Twin
from fewlabel.networks.weights import UNREADABLE, load_weights, read_weights

logger = logging.getLogger(__name__)

Recipe = Mapping[str, Any]


class PretrainedWriter:
    """Write encoder and decoder of a pre-trained network, and the recipe of its images, when training has ended.

    The file is ``{"state_dict": {name: tensor}, "recipe": {key: value}}``, of tensors and plain containers; whatever
    reads a state dict here reads it.

    Args:
        file: to write, by custom ``pretrained.pt`` in the folder of the stage.
        network: whose :meth:`~fewlabel.networks.DenseUNet.trunk_state_dict` is written.
        recipe: what an image goes through before the network sees it, by config key; JSON values.
    """

    def __init__(self, file: str | Path, network: DenseUNet, recipe: Recipe) -> None:
        self.file, self.network, self.recipe = Path(file), network, dict(recipe)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Engine) -> None:
        """Write the file, in the first process only."""
        if idist.get_rank() == 0:
            weights = {name: w.cpu().contiguous() for name, w in self.network.trunk_state_dict().items()}
            with atomic(self.file) as temporary:
                torch.save({"state_dict": weights, "recipe": self.recipe}, temporary)


class PretrainedLoader:
    """Load pre-trained weights when an engine starts; stands before the handler that resumes.

    Weights are copied where names and shapes fit, so that a file without a head leaves the head new.

    Args:
        network: receives the weights; of a tied :class:`~fewlabel.networks.Twin` the one network in it, unless the
            file holds a twin.
        file: with or without a recipe; empty loads nothing.
        recipe: of this config, compared with that of the file.
        key: config key that names the file, for messages.
        mismatch: ``"refuse"`` a file of another recipe, or ``"warn"``.
        global_file: weights whose encoder goes beside a :class:`~fewlabel.networks.DualUNet`; for that network only.
        then: called afterwards.

    Raises:
        ConfigError: when ``mismatch`` is neither.
    """

    def __init__(
        self,
        network: nn.Module,
        file: str | Path,
        recipe: Recipe,
        key: str = "init_checkpoint",
        mismatch: str = "refuse",
        global_file: str | Path = "",
        then: Callable[[], object] | None = None,
    ) -> None:
        if mismatch not in ("refuse", "warn"):
            raise ConfigError(f"recipe_mismatch '{mismatch}' is neither refuse nor warn")
        self.network, self.file, self.recipe, self.key = network, str(file), dict(recipe), key
        self.mismatch, self.global_file, self.then = mismatch, str(global_file), then

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)

    def started(self, engine: Engine) -> None:
        """Load what there is; see :meth:`load`."""
        self.load()

    def load(self) -> None:
        """Compare recipes and load the weights.

        Raises:
            ConfigError: when a file is missing, damaged, of another architecture or, unless ``mismatch`` is ``warn``,
                of another recipe.
        """
        for file in filter(None, (self.file, self.global_file)):
            if problem := recipe_problem(file, self.recipe, self.key):
                if self.mismatch == "refuse":
                    raise ConfigError(problem)
                logger.warning("%s", problem)
        inner = self.network.first if isinstance(self.network, Twin) and self.network.tied else self.network
        if self.file and any(name.startswith("first.") for name in read_weights(self.file, self.key)):
            load_weights(self.network, self.file, self.key)
        elif isinstance(inner, DualUNet):
            if not self.global_file:
                raise ConfigError("wiring dual needs a finished encoder: give base_checkpoint, or pretrain_with both")
            inner.load_pretrained(self.global_file, self.file or None)
        elif self.file:
            _load_trunk(inner, self.file, self.key)
        if self.then is not None:
            self.then()


def _load_trunk(network: nn.Module, file: str, key: str) -> None:
    """Load what pre-training has written, all of it; of other files what fits, with a warning of what does not."""
    weights = read_weights(file, key)
    trunk = network.trunk_state_dict() if isinstance(network, DenseUNet) else {}
    if trunk and {n: w.shape for n, w in trunk.items()} == {n: w.shape for n, w in weights.items()}:
        network.load_state_dict(weights, strict=False)
        logger.info("encoder and decoder from %s; the head is new", file)
    else:
        load_weights(network, file, key)


def recipe_problem(file: str | Path, recipe: Recipe, key: str = "init_checkpoint") -> str:
    """Say in what the recipe of a checkpoint differs from that of a config.

    Args:
        file: the checkpoint.
        recipe: of the config.
        key: config key that names the file.

    Returns:
        One sentence with the remedy; empty where nothing differs or the file holds no recipe.
    """
    theirs = read_recipe(file)
    different = [name for name in recipe if name in theirs and _plain(theirs[name]) != _plain(recipe[name])]
    if not different:
        return ""
    facts = ", ".join(f"{name} {theirs[name]} (here {recipe[name]})" for name in different)
    remedy = " ".join(f"--{name} '{theirs[name]}'" for name in different)
    return f"{key} '{file}' learned from images of {facts}: give {remedy}, or --recipe_mismatch warn"


def read_recipe(file: str | Path) -> dict[str, Any]:
    """Return the recipe of a checkpoint; empty where it holds none or cannot be read, which loading will tell.

    Args:
        file: written by :class:`PretrainedWriter`, or any other.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE:
        return {}
    found = content.get("recipe") if isinstance(content, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """A value in which 1 and 1.0, a list and a tuple are the same."""
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
