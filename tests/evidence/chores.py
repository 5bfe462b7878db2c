# SPDX-License-Identifier: Apache-2.0
"""Work for processes of their own; nothing heavy is imported here."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path


def note(job: tuple[Path, str]) -> None:
    """Write the process's number to a file, or do what its name says instead."""
    folder, name = job
    if name == "raises":
        raise ValueError("on purpose")
    if name == "says how":
        (folder / name).write_text(multiprocessing.get_start_method())
        return
    if name == "exits":
        sys.exit(3)
    (folder / name).write_text(str(os.getpid()))
    if name == "sleeps":
        time.sleep(600)
