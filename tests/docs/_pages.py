# SPDX-License-Identifier: Apache-2.0
"""Read the documents: fenced blocks with the mark before them, files that a page gives, tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.guards._tree import ROOT

PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("bundles/*/docs/*.md")),
)
FENCE = re.compile(r"(`{3,})(\w*)")
MARK = re.compile(r"<!-- (run|not run: .*\w.*) -->")
NAME = re.compile(r"(?:<summary><code>|^`)([\w./-]+\.\w+)(?:</code>.*</summary>|`)$")


class Block(NamedTuple):
    """A fenced block.

    Args:
        line: where its text begins, counted from 1.
        language: the word after the fence.
        text: what stands between the fences.
        before: the last line that is not empty before it.
    """

    line: int
    language: str
    text: str
    before: str

    @property
    def mark(self) -> str | None:
        """``run`` or ``not run: reason``; None when it has no mark."""
        found = MARK.fullmatch(self.before)
        return found[1] if found else None


def blocks(text: str, language: str = "") -> Iterator[Block]:
    """Yield the fenced blocks of a page, those of one language only when it is given; what is inside one is text."""
    lines = text.splitlines()
    before, number = "", 0
    while number < len(lines):
        fence = FENCE.fullmatch(lines[number])
        if fence is None:
            before = lines[number].strip() or before
            number += 1
            continue
        end = lines.index(fence[1], number + 1)
        if language in ("", fence[2]):
            yield Block(number + 2, fence[2], "\n".join(lines[number + 1 : end]) + "\n", before)
        before, number = "", end + 1


def files_of_page(text: str) -> dict[str, str]:
    """Return path → content of the blocks before which nothing but a path stands, as code or as a summary."""
    named = ((NAME.search(block.before), block.text) for block in blocks(text))
    return {name[1]: content for name, content in named if name}


def section(text: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    return re.split(rf"^## {re.escape(heading)}$", text, flags=re.M)[1].split("\n## ")[0]


def table(text: str, *columns: str) -> dict[str, Any]:
    """Return first column → second column (JSON) of all tables whose header begins with these columns."""
    rows: dict[str, Any] = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif tuple(cells[: len(columns)]) == columns:
            inside = True
        elif inside and not set(line) <= set("|- "):
            assert cells[0] not in rows, f"{cells[0]} has two rows"
            rows[cells[0].strip("`")] = json.loads(cells[1].strip("`"))
    return rows
