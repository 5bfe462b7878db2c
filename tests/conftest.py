# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: a cache of their own, and the real development data where it is present.

Compiled loops check their indices here, also in processes that a test starts: without the check, a write beyond an
array shows as a crash somewhere else, if at all. The machine code of the tests is therefore kept apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("NUMBA_BOUNDSCHECK", "1")
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"))


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache; processes that a test starts inherit this one."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWLABEL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return the folder of a real data set by its name, or skip; ``FEWLABEL_DATA`` says where they lie."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("FEWLABEL_DATA", default))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the real data {name} is not at {root} (set FEWLABEL_DATA)")
        return root / name

    return folder
