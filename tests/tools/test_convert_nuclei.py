# SPDX-License-Identifier: Apache-2.0
"""The command that converts published sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.data.converters.test_monuseg import add
from tests.guards._tree import ROOT
from tools.convert_nuclei import monuseg

from fewlabel.data.converters.monuseg import TRAINING


def test_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in sorted(TRAINING)[:3]:
        add(tmp_path / "in", tmp_path / "in", stem)
    monuseg(str(tmp_path / "in"), str(tmp_path / "out"))
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "revision: training of the first revision (3 of 30, without the 7 added later)"
    assert told[-1] == f"train on it with: --dataset_dir {tmp_path / 'out'}" and "nuclei: 6" in told


def test_wrong_folder_is_one_sentence(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "tools" / "convert_nuclei.py"), "bcdata", "--source", "no", "--output", "out"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip().startswith("fewlabel: ") and "Traceback" not in done.stderr
