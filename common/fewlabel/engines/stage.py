# SPDX-License-Identifier: Apache-2.0
"""Stages of a method that runs in several steps, each done once for the inputs it has."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from fewlabel.files import write_json

logger = logging.getLogger(__name__)


class Stage:
    """A step whose results are files, done once for the same inputs and skipped from then on.

    The stage works in ``<output_dir>/<name>-<hash of inputs>``: other inputs get another folder, so nothing is ever
    overwritten and switching back costs nothing. A marker written last says that it is complete; work that was killed
    is called again with the same folder and may resume there. Building a stage reads and writes nothing, so configs
    with several stages can be checked and built before the first one has run.

    Args:
        name: what the stage makes, such as ``pseudo_labels``.
        output_dir: folder that holds the stages of a run.
        work: called as ``work(folder)``; writes its results there.
        inputs: all that the results depend on, JSON-ready.
        every_rank: True when ``work`` is itself distributed (a training); else rank 0 works while the others wait.
    """

    def __init__(
        self,
        name: str,
        output_dir: str | Path,
        work: Callable[[Path], Any],
        inputs: Mapping[str, Any] | None = None,
        every_rank: bool = False,
    ) -> None:
        self.name = name
        self.inputs = dict(inputs or {})
        self.work = work
        self.every_rank = every_rank
        text = json.dumps(self.inputs, sort_keys=True, default=str)
        self.folder = Path(output_dir) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def marker(self) -> Path:
        """The file that says the stage is complete: its inputs and the size of each file that it made."""
        return self.folder / "stage.json"

    def is_done(self) -> bool:
        """Whether the marker is there and every file that it lists still has its size."""
        if not self.marker.is_file():
            return False
        files = json.loads(self.marker.read_text(encoding="utf-8"))["files"]
        return all((self.folder / f).is_file() and (self.folder / f).stat().st_size == n for f, n in files.items())

    def run(self) -> Path:
        """Do the work unless it is done.

        Returns:
            The stage's folder.
        """
        done = self.is_done()
        idist.barrier()  # all ranks have looked before one of them changes what there is to see
        if done:
            logger.info("stage %s: already done in %s", self.name, self.folder)
            return self.folder
        if self.every_rank or idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.work(self.folder)
        if idist.get_rank() == 0:
            self._mark()
        idist.barrier()
        return self.folder

    def _mark(self) -> None:
        files = {
            str(f.relative_to(self.folder)): f.stat().st_size
            for f in sorted(self.folder.rglob("*"))
            if f.is_file() and f != self.marker
        }
        write_json(self.marker, {"inputs": self.inputs, "files": files})
