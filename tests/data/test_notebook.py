# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import mask, picture

from fewlabel.data import notebook as module
from fewlabel.data.facts import Facts, read_facts
from fewlabel.data.notebook import Notebook, is_empty_mask


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests write and read within milliseconds; the change time of a file cannot be set back."""
    monkeypatch.setattr(module, "SETTLED_NS", -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were really read."""
    seen: list[str] = []

    def spy(path: str, mask: bool) -> Facts:
        seen.append(Path(path).name)
        return read_facts(path, mask)

    monkeypatch.setattr(module, "read_facts", spy)
    return seen


def test_notes_survive_the_process_and_change_nothing(tmp_path: Path, reads: list[str]) -> None:
    files = [(str(picture(tmp_path / "a.png")), False), (str(mask(tmp_path / "b.png")), True)]
    book = Notebook(tmp_path / "notes")
    first = [book.look(*file) for file in files]
    book.save()
    later = Notebook(tmp_path / "notes")
    assert [later.look(*file) for file in files] == first and reads == ["a.png", "b.png"]
    assert first[0] == Facts(size=(16, 12), channels=3, mode="RGB")
    assert first[1].values == (0, 1) and first[1].distinct == 2


def test_image_and_mask_of_one_file_are_two_notes(tmp_path: Path) -> None:
    path = str(mask(tmp_path / "a.png"))
    book = Notebook(tmp_path / "notes")
    assert book.look(path, False).values == () and book.look(path, True).values == (0, 1)


def test_notes_never_go_stale(tmp_path: Path, reads: list[str]) -> None:
    path = mask(tmp_path / "a.png", value=1)
    before = path.stat()
    book = Notebook(tmp_path / "notes")
    assert book.look(str(path), True).values == (0, 1)
    mask(path, value=2)  # same name and size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and same modification time, as rsync leaves it
    assert path.stat().st_size == before.st_size
    assert book.look(str(path), True).values == (0, 2) and len(reads) == 2
    path.unlink()
    assert book.look(str(path), True).error == "does not exist"


def test_a_file_touched_just_now_is_not_noted(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 10**12)
    path = str(mask(tmp_path / "a.png"))
    book = Notebook(tmp_path / "notes")
    book.look(path, True)
    book.look(path, True)
    assert len(reads) == 2


def test_errors_are_not_noted(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    book = Notebook(tmp_path / "notes")
    assert book.look(str(tmp_path / "a.png"), False).error == book.look(str(tmp_path / "a.png"), False).error != ""
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"format": -1, "notes": {}}', '{"format": 1}'])
def test_broken_notes_are_ignored(tmp_path: Path, content: str) -> None:
    path = str(picture(tmp_path / "a.png"))
    book = Notebook(tmp_path / "notes")
    facts = book.look(path, False)
    book.save()
    next((tmp_path / "notes").iterdir()).write_text(content)
    assert Notebook(tmp_path / "notes").look(path, False) == facts


def test_folder_of_files_is_stamped_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in "ab":
        (tmp_path / "series" / name).write_text(name)
    before = module._stamp(str(tmp_path / "series"))
    (tmp_path / "series" / "a").write_text("longer")
    assert module._stamp(str(tmp_path / "series")) != before


def test_empty_masks(tmp_path: Path) -> None:
    assert is_empty_mask(str(mask(tmp_path / "e.png", value=0)))
    assert not is_empty_mask(str(mask(tmp_path / "f.png", value=3)))
    assert not is_empty_mask(str(tmp_path / "gone.png"))
    (tmp_path / "bad.png").write_bytes(b"x")
    assert not is_empty_mask(str(tmp_path / "bad.png"))
    mask(tmp_path / "e.png", value=1)
    assert not is_empty_mask(str(tmp_path / "e.png"))


def test_many_values_are_counted_but_not_all_kept(tmp_path: Path) -> None:
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(tmp_path / "i.png")
    facts = read_facts(str(tmp_path / "i.png"), mask=True)
    assert facts.distinct == 1200 and facts.values == tuple(range(256))
