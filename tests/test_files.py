# SPDX-License-Identifier: Apache-2.0
"""Atomic files and the folder that keeps earlier runs."""

from __future__ import annotations

from pathlib import Path

import pytest

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
