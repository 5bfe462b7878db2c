# SPDX-License-Identifier: Apache-2.0
"""The hooks of a commit and the checks of CI agree."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from tests.guards._tree import ROOT
from tests.guards.test_no_machine_paths import LIMIT


@pytest.fixture(scope="module")
def hooks() -> dict[str, dict[str, Any]]:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    return {hook["id"]: hook | {"rev": repo.get("rev")} for repo in repos for hook in repo["hooks"]}


def test_what_a_commit_runs(hooks: dict[str, dict[str, Any]]) -> None:
    wanted = "end-of-file-fixer trailing-whitespace check-json detect-private-key ruff-check ruff-format codespell"
    assert set(wanted.split()) <= hooks.keys()
    assert hooks["check-added-large-files"]["args"] == [f"--maxkb={LIMIT // 1024}"]


def test_no_hook_rewrites_json(hooks: dict[str, dict[str, Any]]) -> None:
    assert not [name for name in hooks if re.search("pretty|prettier", name)]


def test_ruff_is_the_one_of_ci(hooks: dict[str, dict[str, Any]]) -> None:
    pinned = re.search(r"^ruff==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None and hooks["ruff-check"]["rev"] == hooks["ruff-format"]["rev"] == f"v{pinned.group(1)}"
