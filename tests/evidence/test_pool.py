# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.evidence.chores import note
from tests.guards._tree import ROOT

from fewlabel.evidence.pool import run_jobs


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: object, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_every_job_has_a_process_and_failures_stay_their_own(tmp_path: Path) -> None:
    names = ["one", "raises", "two", "exits", "three"]
    codes = dict(run_jobs([(name, (tmp_path, name)) for name in names], note, slots=2))
    assert codes == {"one": 0, "raises": 1, "two": 0, "exits": 3, "three": 0}
    pids = {int((tmp_path / name).read_text()) for name in ("one", "two", "three")}
    assert len(pids) == 3 and os.getpid() not in pids


def test_processes_of_a_job_start_as_they_do_outside(tmp_path: Path) -> None:
    """Readers of data are forked where that is the rule, so that lambdas of a config need no pickle."""
    assert dict(run_jobs([("x", (tmp_path, "says how"))], note, slots=1)) == {"x": 0}
    assert (tmp_path / "says how").read_text() == multiprocessing.get_start_method()


def test_the_next_job_is_taken_when_a_slot_is_free(tmp_path: Path) -> None:
    taken: list[str] = []

    def jobs() -> Iterator[tuple[str, tuple[Path, str]]]:
        for name in ("a", "b", "c"):
            taken.append(name)
            yield name, (tmp_path, name)

    ended = run_jobs(jobs(), note, slots=1)
    next(ended)
    assert taken == ["a"]
    assert [name for name, _ in ended] == ["b", "c"]


def test_leaving_early_ends_what_runs(tmp_path: Path) -> None:
    ended = run_jobs([(name, (tmp_path, name)) for name in ("sleeps", "one")], note, slots=2)
    assert next(ended)[0] == "one"
    assert wait_for((tmp_path / "sleeps").is_file)
    pid = int((tmp_path / "sleeps").read_text())
    ended.close()  # type: ignore[attr-defined]
    assert wait_for(lambda: not alive(pid))


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from tests.evidence.chores import note\n"
        "from fewlabel.evidence.pool import run_jobs\n"
        "if __name__ == '__main__':\n"
        "    list(run_jobs([('x', (pathlib.Path(sys.argv[1]), 'sleeps'))], note, 1))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    places = os.pathsep.join([str(ROOT / "common"), str(ROOT)])
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": places})
    assert wait_for(lambda: (tmp_path / "sleeps").is_file() and (tmp_path / "sleeps").read_text())
    pid = int((tmp_path / "sleeps").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not alive(pid)), "a run without its sweep would meet the next one's"
