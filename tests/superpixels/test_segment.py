# SPDX-License-Identifier: Apache-2.0
"""Superpixels on disk: right whoever asks, whatever is damaged or killed, and computed once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewlabel.kernels import felzenszwalb as kernel
from fewlabel.superpixels import felzenszwalb, segment

PARAMETERS: tuple[Any, ...] = (30.0, 0.6, 8)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the kernel got."""
    batches: list[int] = []
    original = kernel.felzenszwalb

    def counted(image: Tensor, *parameters: Any) -> Tensor:
        batches.append(len(image))
        return original(image, *parameters)

    monkeypatch.setattr(kernel, "felzenszwalb", counted)
    return batches


def images(count: int, *size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, *(size or (24, 31)), generator=torch.Generator().manual_seed(seed))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.labels"))


def test_computes_what_is_missing(tmp_path: Path, computed: list[int]) -> None:
    batch = images(4)
    first = felzenszwalb(batch[:2], *PARAMETERS, folder=tmp_path)
    whole = felzenszwalb(batch, *PARAMETERS, folder=tmp_path)
    again = felzenszwalb(batch.flip(0), *PARAMETERS, folder=tmp_path)
    assert computed == [2, 2]
    expected = kernel.felzenszwalb(batch, *PARAMETERS)
    assert {t.dtype for t in (first, whole, again)} == {expected.dtype} == {torch.uint16}
    for got in (torch.cat([first.int(), whole[2:].int()]), whole.int(), again.flip(0).int()):
        assert torch.equal(got, expected.int())
    assert len(files(tmp_path)) == 4


def test_volumes_and_large_labels(tmp_path: Path, computed: list[int]) -> None:
    for batch, parameters in (
        (images(1, 5, 6, 7), (9.0, 0.5, 3, (2.0, 1.0, 1.0), 18)),
        (images(1, 260, 260), (0.0, 0.0, 0)),
    ):
        once, twice = (felzenszwalb(batch, *parameters, folder=tmp_path) for _ in range(2))
        assert once.dtype == twice.dtype == kernel.felzenszwalb(batch, *parameters).dtype
        assert torch.equal(once.int(), twice.int())
    assert computed == [1, 1, 1, 1]


def test_every_parameter_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = images(1)
    variants: list[tuple[Any, ...]] = [(), (2.0,), (1.0, 0.5), (1.0, 0.8, 9), (1.0, 0.8, 20, (1.0, 2.0))]
    variants += [(1.0, 0.8, 20, (2.0, 1.0)), (1.0, 0.8, 20, None, 4)]
    for variant in variants:
        felzenszwalb(batch, *variant, folder=tmp_path)
    assert len(files(tmp_path)) == len(variants)
    changed = batch.clone()
    changed[0, 0, 3, 4] += 1e-7
    others = [changed, batch.double(), batch.view(1, 1, 31, 24), batch.view(1, 31, 24, 1), batch.view(1, 1, 1, 24, 31)]
    for other in others:
        felzenszwalb(other, folder=tmp_path)
    assert len(files(tmp_path)) == len(variants) + len(others)
    monkeypatch.setattr(kernel, "VERSION", kernel.VERSION + 1)
    felzenszwalb(batch, folder=tmp_path)
    assert len(files(tmp_path)) == len(variants) + len(others) + 1


def test_layout_does_not_count(tmp_path: Path) -> None:
    batch = images(2, 20, 24)
    for same in (batch, batch.mT.contiguous().mT, batch.clone().requires_grad_()):
        felzenszwalb(same, folder=tmp_path)
    felzenszwalb(batch.bfloat16(), folder=tmp_path)
    assert len(files(tmp_path)) == 4


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path))
    felzenszwalb(images(1))
    assert len(files(tmp_path / "superpixels")) == 1


def test_any_damage_is_noticed(tmp_path: Path, computed: list[int], caplog: pytest.LogCaptureFixture) -> None:
    batch = images(1, 9, 9)
    expected = felzenszwalb(batch, *PARAMETERS, folder=tmp_path).int()
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(len(whole))]
    damages = [b"", whole[:10], whole[:-1], whole + b"x", *flipped]
    computed.clear()
    for damage in damages:
        path.write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(felzenszwalb(batch, *PARAMETERS, folder=tmp_path).int(), expected)
        assert f"{path} is damaged" in caplog.text
        caplog.clear()
        assert path.read_bytes() == whole
    assert computed == [1] * len(damages)


def test_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    batch = images(1)
    with caplog.at_level(logging.WARNING):
        labels = felzenszwalb(batch, *PARAMETERS, folder=tmp_path / "file")
    assert torch.equal(labels.int(), kernel.felzenszwalb(batch, *PARAMETERS).int())
    assert "not kept" in caplog.text


def test_files_are_compact(tmp_path: Path) -> None:
    smooth = torch.nn.functional.avg_pool2d(images(1, 200, 200), 9, 1)
    labels = felzenszwalb(smooth, 20.0, folder=tmp_path)
    (path,) = files(tmp_path)
    assert labels.int().max() > 20
    assert path.stat().st_size < labels.numel() * 2 / 8


def test_mistakes_leave_no_file(tmp_path: Path) -> None:
    bad = images(2)
    bad[1, 0, 0, 0] = float("nan")
    for image, parameters in (
        (bad, ()),
        (images(1)[0], ()),
        (images(1), (-1.0,)),
        (images(1), (1.0, 0.8, 20, None, 6)),
    ):
        with pytest.raises(ValueError, match=r"finite|expected|scale|connectivity"):
            felzenszwalb(image, *parameters, folder=tmp_path)
    with pytest.raises(TypeError):
        felzenszwalb(images(1).to(torch.complex64), folder=tmp_path)
    assert not files(tmp_path)
    assert felzenszwalb(images(2)[:0], folder=tmp_path).shape == (0, 24, 31)


def _fill(folder: Path, forever: bool) -> None:
    """Body of a process: asks for the same images, over new files again and again if ``forever``."""
    while True:
        labels = felzenszwalb(images(6), *PARAMETERS, folder=folder).int()
        assert torch.equal(labels, kernel.felzenszwalb(images(6), *PARAMETERS).int())
        if not forever:
            return
        for path in files(folder):
            path.unlink(missing_ok=True)


@pytest.fixture
def processes() -> Any:
    return multiprocessing.get_context("spawn")


def test_two_processes_at_once(tmp_path: Path, processes: Any) -> None:
    both = [processes.Process(target=_fill, args=(tmp_path, False)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(files(tmp_path)) == 6
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
def test_killed_while_writing(tmp_path: Path, processes: Any, caplog: pytest.LogCaptureFixture) -> None:
    process = processes.Process(target=_fill, args=(tmp_path, True))
    process.start()
    deadline = time.monotonic() + 120
    while not files(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    with caplog.at_level(logging.WARNING):
        _fill(tmp_path, forever=False)
    assert not caplog.text  # every file is whole or absent


def test_half_written_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[int]) -> None:
    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            felzenszwalb(images(1), folder=tmp_path)
    assert not files(tmp_path)
    assert segment.felzenszwalb(images(1), folder=tmp_path).shape == (1, 24, 31)
    assert computed == [1, 1]
