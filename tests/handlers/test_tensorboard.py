# SPDX-License-Identifier: Apache-2.0
"""LazyWriter: no file before the first value, one file for all who share it."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.handlers import TensorBoardStatsHandler
from tests.toy import toy_trainer

from fewlabel.handlers import LazyWriter

pytest.importorskip("tensorboard")


def test_no_file_before_the_first_value(tmp_path: Path) -> None:
    writer = LazyWriter(tmp_path / "tensorboard")
    handlers = [
        TensorBoardStatsHandler(summary_writer=writer, output_transform=lambda output: output[0]) for _ in range(2)
    ]
    trainer = toy_trainer(handlers, max_epochs=1)
    assert not list(tmp_path.iterdir())
    trainer.run()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"error" in file.read_bytes()


def test_copies_and_missing_names_do_not_recurse() -> None:
    with pytest.raises(AttributeError):
        _ = LazyWriter("unused")._nothing
