# SPDX-License-Identifier: Apache-2.0
"""Stages of a method that runs in several steps, each done once for the inputs it has."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch

from fewlabel.data.randomness import kept
from fewlabel.errors import ConfigError
from fewlabel.files import write_json

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Any]


class Stage:
    """A step whose results are files, done once for the same inputs and skipped from then on.

    The stage works in ``<output_dir>/<name>-<hash of inputs>``: other inputs get another folder, so nothing is ever
    overwritten and switching back costs nothing. A marker written last says that it is complete; work that was killed
    is called again and may resume in the same folder. Building a stage reads and writes nothing, so configs with
    several stages can be checked and built before the first one has run.

    Args:
        name: what the stage makes, such as ``pseudo_labels``.
        output_dir: folder that holds the stages of a run.
        inputs: all that the results depend on: what JSON writes, paths, devices, and the stages whose results this one
            reads, which stand for their own inputs. Or a function that returns it, called when the folder is first
            asked for, where inputs take reading, such as :func:`fewlabel.files.content_digest` of the images.
        every_rank: True when the work is itself distributed (a training); else rank 0 works while the others wait.

    Example:
        >>> first = Stage("pretraining", "output", {"task": "similarity"})
        >>> second = Stage("pseudo_labels", "output", lambda: {"pretraining": first, "clusters": 3})
        >>> second.folder.as_posix()
        'output/pseudo_labels-41b91f576ed4'
    """

    def __init__(
        self,
        name: str,
        output_dir: str | Path,
        inputs: Inputs | Callable[[], Inputs] | None = None,
        every_rank: bool = False,
    ) -> None:
        self.name = name
        self.output_dir = Path(output_dir)
        self.every_rank = every_rank
        self._inputs = inputs or {}

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The inputs as JSON has them."""
        given = self._inputs() if callable(self._inputs) else self._inputs
        found: dict[str, Any] = json.loads(json.dumps(dict(given), sort_keys=True, default=self._named))
        return found

    @cached_property
    def folder(self) -> Path:
        """Where the results are, once the stage is done."""
        text = json.dumps(self.inputs, sort_keys=True)
        return self.output_dir / f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

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

    def run(self, work: Callable[..., Any]) -> Path:
        """Do the work unless it is done.

        Args:
            work: called as ``work(folder)`` when it has an argument without a default, else as ``work()``, such as the
                bound ``run`` of a trainer; writes its results into the folder.

        Returns:
            The stage's folder.

        Raises:
            TypeError: when ``work`` needs more than one argument.
        """
        arguments = _arguments(work, self.folder)
        done = self.is_done()
        idist.barrier()  # all ranks have looked before one of them changes what there is to see
        if done:
            logger.info("stage %s: already done in %s", self.name, self.folder)
            return self.folder
        if self.every_rank or idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            with kept():  # so that what is built later has the same random weights whether or not there was work
                work(*arguments)
        if idist.get_rank() == 0:
            self._mark()
        idist.barrier()
        return self.folder

    def require(self) -> Path:
        """Return the folder of a stage that is done.

        Raises:
            ConfigError: when it is not, so that nothing is made from half of it.
        """
        if not self.is_done():
            raise ConfigError(
                f"stage {self.name} is not done in '{self.folder}': run training, or the stages up to this one, with "
                "the same keys and overlays"
            )
        return self.folder

    def _mark(self) -> None:
        files = {
            str(f.relative_to(self.folder)): f.stat().st_size
            for f in sorted(self.folder.rglob("*"))
            if f.is_file() and f != self.marker
        }
        write_json(self.marker, {"inputs": self.inputs, "files": files})

    def _named(self, value: Any) -> str:
        """A word for an input that JSON cannot write, the same in every process."""
        if isinstance(value, Stage):
            return value.folder.name
        if isinstance(value, Path | torch.device):
            return str(value)
        raise TypeError(
            f"an input of stage {self.name} is a {type(value).__name__}, expected what JSON writes, a path, a device "
            "or a stage"
        )


def _arguments(work: Callable[..., Any], folder: Path) -> tuple[Path, ...]:
    """The folder, where ``work`` has an argument that somebody must give."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(work).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    if len(needed) > 1:
        raise TypeError(f"the work of a stage needs {needed}, expected a folder or nothing")
    return (folder,) if needed else ()
