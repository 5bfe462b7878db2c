# SPDX-License-Identifier: Apache-2.0
"""Write the report of a run: from a config when a run ends, or for any folder later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewlabel.data.ranks import rank_and_world
from fewlabel.errors import ConfigError
from fewlabel.files import atomic
from fewlabel.report.comparison import Comparison, compare, find_baselines
from fewlabel.report.run import Run, read_run

if TYPE_CHECKING:
    from fewlabel.evidence import Plan

logger = logging.getLogger(__name__)
FILE = "report.html"


def write(output_dir: str | Path, baseline: str | Path | None = None) -> Path:
    """Write ``output_dir/report.html``, one file that needs nothing else, below five megabytes.

    What the folder does not hold yet is named on the page, and the rest is shown.

    Args:
        output_dir: the folder of a run.
        baseline: folder of the run to compare with; None takes the best of
            :func:`~fewlabel.report.comparison.find_baselines`, if there is one.

    Returns:
        The file.

    Raises:
        ConfigError: when a folder is no run folder, or the baseline was not evaluated on the same cases.
    """
    from fewlabel.report.run_page import run_page  # templates and charts: only where a page is made

    run = read_run(output_dir)
    comparison, notes = _compared(run, baseline)
    page = run_page(run, comparison, notes)
    with atomic(run.folder / FILE) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files may be no text
    return run.folder / FILE


def write_sweep(
    plan: Plan, csv_files: str | Path | Sequence[str | Path], target: str | Path, metric: str | None = None
) -> Path:
    """Write the page of a sweep, one file that needs nothing else.

    Args:
        plan: what was compared; with its folds resolved, runs that are missing are named.
        csv_files: rows of :class:`~fewlabel.evidence.Sweep`, from one machine or several.
        target: the page to write.
        metric: a column; None takes the plan's.

    Returns:
        The file.

    Raises:
        ConfigError: when rows of one variant were made with different settings, or a file is no table of a sweep.
    """
    from fewlabel.evidence import read_rows
    from fewlabel.report.sweep_page import sweep_page

    page = sweep_page(plan, read_rows(csv_files), metric or plan.metric)
    with atomic(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(target)


def _compared(run: Run, baseline: str | Path | None) -> tuple[Comparison | None, list[str]]:
    if baseline is not None:
        return compare(run, read_run(baseline)), []
    found = find_baselines(run)
    if found:
        return compare(run, found[0], found[1:], automatic=True), []
    if run.is_baseline or not run.cases.names:
        return None, []
    return None, [
        "No baseline: no evaluated run with method_enabled false and the same data and labels lies beside this folder."
    ]


def after_run(output_dir: str | Path) -> Path | None:
    """Write the report as the last item of a run id; only the first process does.

    Weights and figures are on disk by then, so nothing that goes wrong here ends a run: it is logged as an error, with
    the command that tries again.

    Args:
        output_dir: the folder of the run.

    Returns:
        The file; None in other processes, or when it could not be written.
    """
    if rank_and_world()[0] != 0:
        return None
    try:
        file = write(output_dir)
    except (Exception, ConfigError):
        logger.exception(
            "the report of '%s' could not be written; the run itself is complete. Try again with: "
            "python tools/report.py '%s'",
            output_dir,
            output_dir,
        )
        return None
    logger.info("report: %s", file)
    return file
