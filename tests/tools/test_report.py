# SPDX-License-Identifier: Apache-2.0
"""The command that writes the report of an old run folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.guards._tree import ROOT
from tests.report.folders import whole
from tools.report import report


def test_command_prints_where_the_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, baseline = whole(tmp_path / "a" / "run"), whole(tmp_path / "b" / "plain", method_enabled=False)
    report(str(run), str(baseline))
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "plain supervision in" in (run / "report.html").read_text(encoding="utf-8")


def test_wrong_folder_is_one_sentence(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "tools" / "report.py"), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip().startswith("fewlabel: ") and "Traceback" not in done.stderr
