# SPDX-License-Identifier: Apache-2.0
"""A TensorBoard writer that makes its file when there is something to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class LazyWriter:
    """Stand in for a ``SummaryWriter``, which makes folder and file as soon as it is built.

    MONAI, MONAI Label and every check build the trainer of a config without running it; none of them should find an
    empty record of a training that never was. Give one to all handlers of a run, and they share one file.

    Args:
        log_dir: folder of the event file.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = str(log_dir)
        self._writer: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=self.log_dir)
        return getattr(self._writer, name)
