# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewlabel.data.files import listed, natural, relative


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ("OP1", ("OP1",)),
        ("OP1, OP2", ("OP1", "OP2")),
        (("OP1", 2), ("OP1", "2")),
        (3, ("3",)),
    ],
)
def test_listed(value: Any, words: tuple[str, ...]) -> None:
    assert listed(value) == words


def test_natural_order() -> None:
    names = ["f10.png", "f9.png", "F2.png", "a/1", "10", "9", "²1"]
    assert sorted(names, key=natural)[:3] == ["9", "10", "a/1"]
    assert sorted(["f10", "f9", "F2"], key=natural) == ["F2", "f9", "f10"]


def test_relative(tmp_path: Path) -> None:
    assert relative(tmp_path / "a" / "b.png", tmp_path) == "a/b.png"
    assert relative("OP1", tmp_path) == "OP1"
