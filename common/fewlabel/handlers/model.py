# SPDX-License-Identifier: Apache-2.0
"""The weights that evaluation and inference use."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from fewlabel.errors import ConfigError
from fewlabel.networks.weights import load_weights


class ModelLoader:
    """Load ``ckpt_dir/model.pt`` into the network when an engine starts, all of it or nothing.

    MONAI's ``CheckpointLoader`` does the same, but what a newcomer meets first (nothing trained yet, the overlay of
    the profile forgotten, a download cut off) ends in three nested tracebacks there, and in one sentence here.

    Args:
        ckpt_dir: folder of ``model.pt``.
        network: receives the weights, on whatever device it is.
    """

    def __init__(self, ckpt_dir: str | Path, network: nn.Module) -> None:
        self.ckpt_dir, self.network = Path(ckpt_dir), network

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)

    def started(self, engine: Engine) -> None:
        """Load the weights; see :meth:`load`."""
        self.load()

    def load(self) -> None:
        """Load the weights.

        Raises:
            ConfigError: when the file is missing, damaged, or of another network.
        """
        file = self.ckpt_dir / "model.pt"
        if not file.is_file():
            raise ConfigError(
                f"ckpt_dir '{self.ckpt_dir}' holds no model.pt: run training first, with the same overlays, or give "
                "the --ckpt_dir of a finished training"
            )
        load_weights(self.network, file, key="ckpt_dir", strict=True)
