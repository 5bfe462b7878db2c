# SPDX-License-Identifier: Apache-2.0
"""The end of a run writes its report; what goes wrong there is said, and costs nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.report.folders import evaluated, trained, whole

from fewlabel.errors import ConfigError
from fewlabel.report import after_run, write
from fewlabel.report.run_page import run_page


def module() -> object:
    import sys

    return sys.modules["fewlabel.report.write"]


def test_report_stands_beside_the_figures_and_is_replaced(tmp_path: Path) -> None:
    file = after_run(str(trained(tmp_path)))
    assert file == tmp_path / "report.html"
    first = file.read_text(encoding="utf-8")
    evaluated(tmp_path)
    assert after_run(tmp_path) == file and file.read_text(encoding="utf-8") != first
    assert not list(tmp_path.glob(".*.tmp"))


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module(), "rank_and_world", lambda: (1, 2))
    assert after_run(trained(tmp_path)) is None and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("error", [RuntimeError("no ink"), ConfigError("no ink"), ImportError("no ink")])
def test_failure_is_logged_and_leaves_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail(*args: object) -> str:
        raise error

    run = whole(tmp_path / "run")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr("fewlabel.report.run_page.run_page", fail)
    assert run_page is not fail
    assert after_run(run) is None
    assert "could not be written" in caplog.text and "no ink" in caplog.text and "tools/report.py" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    with pytest.raises(type(error), match="no ink"):
        write(run)


def test_interrupted_run_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewlabel.report.run_page.run_page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        after_run(trained(tmp_path))
