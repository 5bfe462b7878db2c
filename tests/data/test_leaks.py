# SPDX-License-Identifier: Apache-2.0
"""No way to open a label that is held back, by any reader and under any name, and none that is too much."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.data import get_testdata_file
from tests.data.pictures import mask

from fewlabel.data import StreamLoader
from fewlabel.data.leaks import refuse_labels, worker_guard
from fewlabel.errors import ConfigError


def _series(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(str(get_testdata_file("CT_small.dcm")), folder / "1.dcm")
    return folder


def _volume(file: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), file)
    return file


def _array(file: Path) -> Path:
    np.save(file, np.ones(3))
    return file


def load(path: Path | str) -> Any:
    return LoadImaged("label", reader="fewlabel.data.AnyReader", dtype=None)({"label": str(path)})["label"]


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "a.png": (mask, load),
    "a.tif": (mask, load),
    "a.nii": (_volume, load),
    "a.nii.gz": (_volume, load),
    "series": (_series, load),
    "a.npy": (_array, np.load),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_reader_is_refused(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, read = KINDS[name]
    label = make(tmp_path / name)
    other = make(tmp_path / f"other_{name}")
    with refuse_labels({str(label): "f03.png, which label_budget 4 holds back"}):
        read(other)
        with pytest.raises(ConfigError, match=r"opened .*, the label of f03\.png, which label_budget 4 holds back"):
            read(label)
    read(label)
    assert "test_every_reader_is_refused" in caplog.text, "the log says where it was opened"


@pytest.fixture
def label(tmp_path: Path) -> Path:
    return mask(tmp_path / "labels" / "f03.png")


def _linked(label: Path) -> Path:
    (label.parent / "link.png").symlink_to(label)
    return label.parent / "link.png"


def _hard_linked(label: Path) -> Path:
    os.link(label, label.parent / "second.png")
    return label.parent / "second.png"


def _renamed(label: Path) -> Path:
    return label.rename(label.parent / "innocent.png")


@pytest.mark.parametrize(
    "rename", [_linked, _hard_linked, _renamed, lambda label: label.parent / ".." / "labels/f03.png"]
)
def test_other_names_of_the_file_do_not_help(label: Path, rename: Callable[[Path], Path]) -> None:
    with refuse_labels({str(label): "f03.png"}), pytest.raises(ConfigError, match=r"f03\.png"):
        Image.open(rename(label))


def test_relative_path_does_not_help(label: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(label.parent)
    with refuse_labels({str(label): "f03.png"}):
        for path in (label.name, label.name.encode(), Path(label.name)):
            with pytest.raises(ConfigError):
                os.open(path, os.O_RDONLY)


def test_threads_are_refused_too(label: Path) -> None:
    with refuse_labels({str(label): "f03.png"}), ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(label.read_bytes).exception(), ConfigError)


def test_label_that_a_labeled_item_shares_is_allowed(label: Path) -> None:
    """One empty mask may serve many frames, by name or by link."""
    with refuse_labels({str(_linked(label)): "f03.png", str(label): "f03.png"}, allowed=[str(label)]):
        assert label.read_bytes()


def test_absent_files_are_no_obstacle(tmp_path: Path) -> None:
    with refuse_labels({str(tmp_path / "a.png"): "a.png", "tumor": "b.png"}, allowed=["", str(tmp_path / "c.png")]):
        mask(tmp_path / "d.png")


def test_everything_can_be_opened_after_an_error(label: Path) -> None:
    with pytest.raises(KeyboardInterrupt), refuse_labels({str(label): "f03.png"}):
        raise KeyboardInterrupt
    assert label.read_bytes()


def test_of_two_trainings_at_a_time_none_is_kept_from_its_own_labels(label: Path) -> None:
    other = mask(label.parent / "f04.png")
    with refuse_labels({str(label): "f03.png", str(other): "f04.png"}):
        with refuse_labels({str(other): "f04.png"}):
            assert label.read_bytes()
            with pytest.raises(ConfigError):
                other.read_bytes()
        with pytest.raises(ConfigError):
            label.read_bytes()


def test_stranger_events_pass(label: Path) -> None:
    with refuse_labels({str(label): "f03.png"}):
        for path in (None, 3.5, "\0", object()):
            with pytest.raises((TypeError, ValueError)):
                open(path)  # type: ignore[call-overload] # noqa: PTH123, SIM115
        descriptor = os.open(label.parent, os.O_RDONLY)
        os.close(descriptor)


def test_spawned_worker_refuses(label: Path) -> None:
    with refuse_labels({str(label): "f03.png"}):
        guard = worker_guard()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=guard, initargs=(0,)) as pool:
        assert isinstance(pool.submit(label.read_bytes).exception(), ConfigError)


class Peek:
    """A transform that opens a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item | {"image": torch.tensor(len(self.file.read_bytes()))}


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_the_loader_hand_the_sentence_over(label: Path, method: str) -> None:
    before = multiprocessing.get_start_method()
    loader = StreamLoader(Dataset([{"image": 0}], Peek(label)), epoch_length=1, num_workers=1, keys=("image",))
    multiprocessing.set_start_method(method, force=True)
    try:
        list(loader)
        with refuse_labels({str(label): "f03.png"}), pytest.raises(ConfigError, match=r"the label of f03\.png"):
            list(loader)
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_log_file_may_be_opened_while_refusing(label: Path, tmp_path: Path) -> None:
    """The hook logs, and logging may open a file, which asks the hook."""
    handler = logging.FileHandler(tmp_path / "log.txt", delay=True)
    logger = logging.getLogger("fewlabel.data.leaks")
    logger.addHandler(handler)
    try:
        with refuse_labels({str(label): "f03.png"}), pytest.raises(ConfigError):
            label.read_bytes()
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert "f03.png" in (tmp_path / "log.txt").read_text()


def test_other_thread_is_free_when_the_block_ended(label: Path) -> None:
    with refuse_labels({str(label): "f03.png"}):
        pass
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(label.read_bytes()))
    thread.start()
    thread.join()
    assert found
