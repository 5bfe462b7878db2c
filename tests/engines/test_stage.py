# SPDX-License-Identifier: Apache-2.0
"""Stages are done once for their inputs, and again when what they made is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewlabel.engines import Stage


def stage(folder: Path, calls: list[str], scale: int = 1) -> Stage:
    def work(target: Path) -> None:
        calls.append(target.name)
        (target / "masks").mkdir(exist_ok=True)
        (target / "masks" / "a.txt").write_text("mask" * scale)

    return Stage("pseudo_labels", folder, work, {"scale": scale})


def test_building_touches_nothing(tmp_path: Path) -> None:
    stage(tmp_path / "new", [])
    assert not (tmp_path / "new").exists()


def test_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[str] = []
    first = stage(tmp_path, calls).run()
    assert stage(tmp_path, calls).run() == first and len(calls) == 1


def test_other_inputs_get_another_folder(tmp_path: Path) -> None:
    calls: list[str] = []
    folders = [stage(tmp_path, calls, scale).run() for scale in (1, 2, 1)]
    assert folders[0] == folders[2] != folders[1] and len(calls) == 2


def test_missing_result_is_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    folder = stage(tmp_path, calls).run()
    (folder / "masks" / "a.txt").unlink()
    assert not stage(tmp_path, calls).is_done()
    stage(tmp_path, calls).run()
    assert len(calls) == 2 and (folder / "masks" / "a.txt").is_file()


def test_killed_work_leaves_no_marker(tmp_path: Path) -> None:
    def work(target: Path) -> None:
        (target / "half.txt").write_text("half")
        raise KeyboardInterrupt

    killed = Stage("pseudo_labels", tmp_path, work, {"scale": 1})
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    assert not killed.is_done()
    stage(tmp_path, []).run()
    assert killed.is_done()
