# SPDX-License-Identifier: Apache-2.0
"""A training that reads a label beyond its budget ends there and then."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from ignite.engine import Engine, Events

from fewlabel.data.budget import Splits
from fewlabel.data.formats import files_of
from fewlabel.data.leaks import refuse_labels
from fewlabel.errors import ConfigError


class LeakGuardHandler:
    """Fail a training that opens a label which the split holds back, with the name of the case.

    Items of the unlabeled pool carry no label. A transform, a reader or a mistake could still find the mask by its
    path, and nothing in the figures would tell. So the labels that the budget leaves over and those of the list
    ``test`` cannot be opened as long as the trainer runs, validation and data workers included; see
    :func:`fewlabel.data.leaks.refuse_labels` for what that covers. Of the list ``test`` the names of the files are
    known, which were read with the data list; nothing else of it is.

    An unlabeled batch that carries a label, whatever it was made from, fails the run too.

    Args:
        splits: the split in use; None where there is none, and then no file is refused.
        own_data: False when the training list was put in from outside (MONAI Label): whoever did that chose the labels.
        image_key: key of the image in the items.
        label_key: key of the label in items and batches.

    Note:
        Allowed are the images and the labels of the items that the split gives to training and validation, also where
        another item holds the same file back. Outside of the trainer's ``run`` everything can be opened, and so it can
        as soon as that ended, by whatever error. Not covered: validation items that spawned (not forked) workers load.
    """

    def __init__(
        self, splits: Splits | None, own_data: bool = True, image_key: str = "image", label_key: str = "label"
    ) -> None:
        self.splits = splits if own_data else None
        self.image_key, self.label_key = image_key, label_key

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        if self.splits is not None:
            _surround(engine, self.splits.held_back, self._files(self.splits))

    def iteration_started(self, engine: Engine) -> None:
        """Look at the batch.

        Raises:
            ConfigError: when its unlabeled stream carries a label.
        """
        batch: Any = engine.state.batch
        stream = batch.get("unlabeled") if isinstance(batch, Mapping) else None
        if isinstance(stream, Mapping) and self.label_key in stream:
            raise ConfigError(
                f"the unlabeled batch of iteration {engine.state.iteration} carries a {self.label_key!r}: training "
                "must not see one; remove it from the data set, transform or loader that put it there"
            )

    def _files(self, splits: Splits) -> list[str]:
        items = (*splits.labeled, *splits.unlabeled, *splits.validation)
        return [file for item in items for key in (self.image_key, self.label_key) for file in files_of(item.get(key))]


def _surround(engine: Engine, labels: Mapping[str, str], allowed: list[str]) -> None:
    """Guard ``engine.run``; events would not do, because a handler that raises keeps the later ones from the last."""
    run = engine.run

    @wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with refuse_labels(labels, allowed):
            return run(*args, **kwargs)

    engine.run = guarded
