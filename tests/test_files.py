# SPDX-License-Identifier: Apache-2.0
"""Atomic files and the folder that keeps earlier runs."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from fewlabel import files
from fewlabel.errors import ConfigError
from fewlabel.files import atomic, cache_dir, move_aside, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(RuntimeError), atomic(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == '{\n "a": 1\n}\n' and [p.name for p in file.parent.iterdir()] == ["a.json"]


def test_move_aside_counts_up_and_keeps_others(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("stays")
    assert move_aside(tmp_path, ("a", "b")) is None
    for n in ("1", "2"):
        (tmp_path / "a").write_text(n)
        assert move_aside(tmp_path, ("a", "b")) == tmp_path / "previous" / n
    assert (tmp_path / "previous/1/a").read_text() == "1" and (tmp_path / "other").is_file()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("FEWLABEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "fewlabel"


def test_content_digest_follows_names_contents_and_order_only(tmp_path: Path) -> None:
    def made(folder: str, **contents: str) -> list[Path]:
        (tmp_path / folder).mkdir()
        for name, text in contents.items():
            (tmp_path / folder / name).write_text(text, encoding="utf-8")
        return [tmp_path / folder / name for name in contents]

    here = made("here", a="1", b="2")
    expected = files.content_digest(here)
    assert files.content_digest(map(str, made("there", a="1", b="2"))) == expected
    others = [
        here[::-1],
        here[:1],
        made("renamed", a="1", c="2"),
        made("changed", a="1", b="3"),
        made("joined", a="12"),
    ]
    assert len({expected, *map(files.content_digest, others)}) == 6


def test_content_digest_reads_a_file_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = files._read_digest.__wrapped__

    @functools.lru_cache
    def counted(path: Path, stamp: tuple[int, ...]) -> str:
        reads.append(path.name)
        return read(path, stamp)

    monkeypatch.setattr(files, "_read_digest", counted)
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    first = [files.content_digest([image]) for _ in range(2)]
    assert reads == ["a.png"] * 2, "what changed a moment ago may change again within one tick of its clock"
    monkeypatch.setattr(files, "SETTLED_NS", -(10**18))
    again = [files.content_digest([image]) for _ in range(3)]
    assert reads == ["a.png"] * 3 and set(first) == set(again)
    image.write_bytes(b"two")
    os.utime(image, ns=(0, 0))
    assert files.content_digest([image]) != first[0] and len(reads) == 4


def test_content_digest_names_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file '.*none.png' cannot be read: No such file"):
        files.content_digest([tmp_path / "none.png"])
