# SPDX-License-Identifier: Apache-2.0
"""Time kernels against their alternatives and append the rows to tools/bench/results.

Usage: ``python tools/bench/run.py [--case NAME|all] [--device cpu|cuda] [--append true|false] [--quick true]``.
Implementations of a problem are timed in turns after warm-up (median and quartiles), their peak memory is measured,
their results are compared with the baseline's, and the distance to the machine's bound is stated. Losses are
published as well as wins: rows are appended, never edited. ``environments/runs.csv`` beside them has the versions of
all that was compared, by date and case.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler announces each start and stop

import fire  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import fewlabel  # noqa: E402
from fewlabel.machine import installed_version  # noqa: E402
from tools.bench import cases  # noqa: E402
from tools.bench.case import Case, Implementation, Problem  # noqa: E402
from tools.bench.measure import Machine, commit, peak_bytes, quartiles, queued_milliseconds, rounds  # noqa: E402

Row = dict[str, str | int | float]
PACKAGES = ["torch", "triton", "numpy", "numba", "scipy", "scikit-image", "monai", "pytorch-ignite", "timm"]
PACKAGES += ["pytorch-metric-learning"]


def main(
    case: str = "all",
    device: str = "auto",
    append: bool | str = True,
    quick: bool | str = False,
    results: str = "tools/bench/results",
    budget_s: float = 6.0,
) -> None:
    """Run one case or all.

    Args:
        case: name of a file in ``tools/bench/cases``, or ``all``.
        device: ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one).
        append: write the rows; otherwise only print them.
        quick: the smallest problem of each kind only, few rounds: does it run?
        results: folder of the CSV files, relative to the repository.
        budget_s: seconds of a problem after which no new round of timing starts.
    """
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    machine = Machine(place)
    print(f"{machine.name}, CPU threads {machine.threads}")
    for name in cases.names() if case == "all" else [case]:
        for number, rows in enumerate(run(cases.load(name), machine, _truth(quick), budget_s)):
            if _truth(append):
                write(rows, ROOT / results / f"{name}.csv")
            if _truth(append) and number == 0:
                write([environment(rows[0])], ROOT / results / "environments" / "runs.csv")


def run(case: Case, machine: Machine, quick: bool = False, budget_s: float = 6.0) -> Iterator[list[Row]]:
    """Measure the problems of a case one after the other; prints as it goes.

    Args:
        case: what to run.
        machine: where, and how fast that is.
        quick: only the smallest problem of each kind, three rounds.
        budget_s: see :func:`main`.

    Yields:
        The rows of a problem, one per implementation, ready for the CSV.
    """
    stamp: Row = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"), "commit": commit(ROOT)}
    stamp |= {"device": machine.name, "threads": machine.threads, "torch": torch.__version__}
    stamp |= {"fewlabel": fewlabel.__version__, "case": case.name}
    seen: set[tuple[str | int, ...]] = set()
    for problem in case.problems:
        kind = tuple(value for value in problem.columns.values() if isinstance(value, str))
        if problem.device not in (None, machine.device.type) or (quick and kind in seen):
            continue
        seen.add(kind)
        print("\n" + ", ".join(f"{key} {value}" for key, value in problem.columns.items()))
        repeats = min(problem.rounds, 3) if quick else problem.rounds
        rows = _measure(problem, case.baseline, machine, repeats, budget_s)
        print("\n".join(map(_line, rows)), flush=True)
        yield [stamp | row for row in rows]


def environment(row: Row) -> Row:
    """Return what identifies a run, and the versions of what takes part in it; empty for what is not there.

    Args:
        row: any of the run.
    """
    run_of = {key: row[key] for key in ("date", "commit", "device", "threads", "case")}
    versions = {name: installed_version(name) or "" for name in PACKAGES}
    return {**run_of, "python": platform.python_version(), **versions}


def write(rows: list[Row], path: Path) -> None:
    """Append rows to a CSV file, with a header where the file is new.

    Args:
        rows: at least one, all with the same keys.
        path: the file.

    Raises:
        ValueError: the file has other columns.
    """
    columns = list(rows[0])
    if path.is_file():
        with path.open(newline="") as file:
            present = next(csv.reader(file), [])
        if present != columns:
            raise ValueError(f"{path.name} has columns {present}, the new rows have {columns}: start a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def _measure(problem: Problem, baseline: str, machine: Machine, repeats: int, budget_s: float) -> list[Row]:
    """Rows of one problem: time, memory, deviation from the baseline, distance to the bound."""
    machine.measure(problem.work.dtype)
    inputs = problem.make(machine.device)
    forms = {name: form for name, form in problem.implementations.items() if name not in problem.skip}
    calls = {name: partial(_once, form, inputs, problem.backward) for name, form in forms.items()}
    expected = _compared(problem, calls[baseline](), inputs) if baseline in calls else None
    deviations = {name: _deviation(_compared(problem, call(), inputs), expected) for name, call in calls.items()}
    memory = {name: peak_bytes(call, machine.device) / 2**20 for name, call in calls.items()}
    times = rounds(calls, machine.device, repeats, budget_s)
    queued = {name: queued_milliseconds(call, machine.device) for name, call in calls.items()}
    load = round(os.getloadavg()[0], 1)  # how busy the machine was, others included
    bound, medians = machine.bound_ms(problem.work), {name: quartiles(t)[1] for name, t in times.items()}
    rows: list[Row] = []
    for name, values in times.items():
        low, median, high = quartiles(values)
        figures = {"median_ms": median, "q25_ms": low, "q75_ms": high, "peak_mib": memory[name]}
        figures |= {"gflop": problem.work.gflop, "gflop_per_s": machine.gflop_per_s, "gbyte_per_s": machine.gbyte_per_s}
        figures |= {"bound_ms": bound, "times_bound": median / bound}
        figures |= {"time_ratio": median / medians.get(baseline, math.nan)}
        figures |= {"memory_ratio": memory[name] / (memory.get(baseline) or math.nan)}
        figures |= {"max_deviation": deviations[name], "queued_ms": queued[name]}
        short = {key: float(f"{value:.4g}") for key, value in figures.items()}
        rows.append({**problem.columns, "implementation": name, "repeats": len(values), "load": load, **short})
    return rows


def _once(form: Implementation, inputs: tuple[Tensor, ...], backward: bool) -> list[Tensor]:
    """One call; returns the result and the gradients of inputs that want one."""
    with torch.set_grad_enabled(backward):
        out = form(*inputs)
    leaves = [t for t in inputs if backward and t.requires_grad]
    return [out.detach(), *(torch.autograd.grad(out, leaves) if leaves else ())]


def _compared(problem: Problem, results: list[Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The results of a call as the problem wants them compared."""
    return [problem.compared(results[0], *inputs), *results[1:]] if problem.compared else results


def _deviation(got: list[Tensor], expected: list[Tensor] | None) -> float:
    """Largest deviation from the baseline over value and gradients, each relative to its largest entry."""
    if expected is None:
        return math.nan
    pairs = zip(got, expected, strict=True)
    return max(float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)) for a, b in pairs)


def _line(row: Row) -> str:
    return (
        f"  {row['implementation']:18s} {row['median_ms']:>9} ms [{row['q25_ms']}, {row['q75_ms']}]  "
        f"{row['peak_mib']} MiB  x{row['time_ratio']} time  x{row['memory_ratio']} memory  "
        f"{row['times_bound']} times the bound  deviation {row['max_deviation']}"
    )


def _truth(value: bool | str) -> bool:
    """Words on the command line arrive as strings."""
    return value if isinstance(value, bool) else value.strip().lower() in ("true", "yes", "1")


if __name__ == "__main__":
    fire.Fire(main)
