# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from fewlabel.data.memory import free_bytes, peak_bytes

STATUS = Path("/proc") / "self" / "status"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    return tmp_path


def _container(folder: Path, limit: str) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("1000000\n")
    (folder / "memory.stat").write_text("anon 600000\ninactive_file 300000\n")


def test_what_the_machine_has_available(machine: Path) -> None:
    assert free_bytes(machine, machine) == 4000 * 1024


def test_a_container_may_have_less(machine: Path) -> None:
    _container(machine, "2000000")
    assert free_bytes(machine, machine) == 1_300_000
    _container(machine, "max")
    assert free_bytes(machine, machine) == 4000 * 1024
    _container(machine, "500000")
    assert free_bytes(machine, machine) == 0


def test_processes_share(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(machine, machine) == 1000 * 1024


def test_this_machine() -> None:
    assert 2**20 < free_bytes() < 2**50
    assert free_bytes(Path("nowhere"), Path("nowhere")) > 2**20


@pytest.mark.skipif(not STATUS.is_file(), reason="no other source to compare with")
def test_what_this_process_has_held() -> None:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    assert 0.9 * held < peak_bytes() < 10 * held
