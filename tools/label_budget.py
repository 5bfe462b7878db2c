# SPDX-License-Identifier: Apache-2.0
"""Compare the variants of a bundle's ``configs/experiments.json`` over label budgets, folds and label draws.

Usage::

    python tools/label_budget.py run --dataset_dir DIR --datalist dataset.json --csv_file FILE [--jobs 2] [--dry_run]
    python tools/label_budget.py table --csv_file FILE [--readme FILE] [--curve FILE] [--page FILE]

``run`` prints how many hours it will take before it starts. A row a run is appended to the CSV; what is there is not
run again, so a sweep that was stopped goes on where it was. Settings, the last iterate and the threshold are those of
the configs: nothing is chosen on the list that is reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fire

from fewlabel.evidence import Plan, Sweep, draw_curve, insert, markdown, read_plan, read_rows
from fewlabel.report import write_sweep

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = "endoscopic_tool_segmentation_mms"


def _listed(value: Any) -> list[Any] | None:
    """Read ``a,b``, ``[1, 2]`` or ``3``, whatever python-fire made of it; None stays None."""
    if value is None:
        return None
    return value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]


def _folds(value: Any) -> Any:
    return value if value == "leave_one_out" else _listed(value)


def run(
    csv_file: str,
    bundle: str = BUNDLE,
    dataset_dir: str = "",
    datalist: str = "datalist.json",
    variants: Any = None,
    budgets: Any = None,
    folds: Any = None,
    draws: Any = None,
    jobs: int = 1,
    device: Any = None,
    max_minutes: float | None = None,
    dry_run: bool = False,
    runs_dir: str = "",
    others: Any = None,
    profile: Any = None,
    **keys: Any,
) -> None:
    """Run what is missing of the sweep, print its tables, and write its page beside the CSV.

    Args:
        csv_file: rows are read from here and appended here.
        bundle: name of a folder in ``bundles/``.
        dataset_dir: folder of the data; empty takes the phantoms.
        datalist: its data list.
        variants: names, separated by commas; all that are not optional by default.
        budgets: label budgets; those of ``experiments.json`` by default.
        folds: ``leave_one_out``, or groups to hold out in turn, separated by commas; ``[]`` scores the list's own
            validation. Those of ``experiments.json`` by default.
        draws: seeds of label draws; those of ``experiments.json`` by default.
        jobs: processes at a time.
        device: such as ``cpu`` or ``cuda:0,cuda:1``, given to the processes in turn.
        max_minutes: start no run that would end later.
        dry_run: time the pilot, print the prediction, and stop.
        runs_dir: where the runs' folders go; by default ``output/sweep`` of the bundle.
        others: CSV files of other machines, a pattern or several, whose runs are not repeated.
        profile: config files that all variants share, by stem; those of ``experiments.json`` by default. Give rows of
            another profile a CSV file of their own.
        **keys: further config keys for every run, such as ``--max_epochs 40``.
    """
    root = ROOT / "bundles" / bundle
    changes = {"budgets": _listed(budgets), "folds": _folds(folds), "draws": _listed(draws)}
    changes["profile"] = _listed(profile)
    plan = read_plan(root, dataset_dir, datalist, **changes)
    if dataset_dir:
        keys["dataset_dir"] = str(Path(dataset_dir).absolute())
    work = Sweep(
        plan,
        Path(csv_file).absolute(),
        Path(runs_dir).absolute() if runs_dir else root / "output" / "sweep",
        {**keys, "datalist": datalist},
        _listed(variants),
        jobs,
        _listed(device) or (),
        max_minutes,
        _listed(others) or (),
    )
    failed = work.pilot()
    print(f"{len(work.todo)} runs to go, about {work.hours():.1f} h with {jobs} at a time", flush=True)
    if failed:
        raise SystemExit(f"the pilot of {', '.join(failed)} failed: see {work.runs_dir / 'pilot' / failed[0]}/log.txt")
    if dry_run:
        return
    broken = work.run()
    _show(plan, [work.csv_file, *work.others])
    print(f"page {write_sweep(plan, [work.csv_file, *work.others], work.csv_file.with_suffix('.html'))}")
    if broken:
        raise SystemExit(f"{len(broken)} runs failed; the same command tries them again")
    if work.todo:
        print(f"{len(work.todo)} runs are left (max_minutes); the same command goes on")


def table(
    csv_file: Any, bundle: str = BUNDLE, metric: str | None = None, readme: str = "", curve: str = "", page: str = ""
) -> None:
    """Print the tables of a sweep; put them into a document, draw the curve and write a page where asked.

    Args:
        csv_file: the rows; a pattern or several files are merged.
        bundle: name of a folder in ``bundles/``.
        metric: a column; that of ``experiments.json`` by default.
        readme: a document with the lines ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``, NAME being that of the
            (first) CSV without its suffix.
        curve: a picture to write (``.png`` or ``.svg``).
        page: an HTML page to write: curve, comparisons and all runs.
    """
    plan = read_plan(ROOT / "bundles" / bundle, folds=[])
    files = _listed(csv_file) or []
    _show(plan, files, metric)
    if readme:
        insert(readme, Path(files[0]).stem, markdown(plan, read_rows(files), metric))
    if curve:
        print(draw_curve(plan, read_rows(files), curve, metric))
    if page:
        print(write_sweep(plan, files, page, metric))


def _show(plan: Plan, files: list[Any], metric: str | None = None) -> None:
    rows = read_rows(files)
    print(markdown(plan, rows, metric) if rows else "no rows yet")


if __name__ == "__main__":
    fire.Fire({"run": run, "table": table})
