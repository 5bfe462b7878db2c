# SPDX-License-Identifier: Apache-2.0
"""Reports of runs, and pictures: one HTML file per run that needs nothing else."""

from __future__ import annotations

from fewlabel.report.comparison import Comparison, compare, find_baselines
from fewlabel.report.pictures import COLORS, TRUTH_COLOR, montage, overlay
from fewlabel.report.run import CaseTable, Run, read_run
from fewlabel.report.write import after_run, write, write_sweep

__all__ = [
    "COLORS",
    "TRUTH_COLOR",
    "CaseTable",
    "Comparison",
    "Run",
    "after_run",
    "compare",
    "find_baselines",
    "montage",
    "overlay",
    "read_run",
    "write",
    "write_sweep",
]
