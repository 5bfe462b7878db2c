# SPDX-License-Identifier: Apache-2.0
"""Put the tables of ``docs/bench.md`` together from the committed rows.

Usage: ``python tools/bench/page.py``. Each case has markers ``<!-- bench-<case>:begin -->`` and ``end`` in the page.
One line for each problem, the latest measurement of it: milliseconds of ours and of each alternative.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

import fire  # noqa: E402

from fewlabel.evidence import insert  # noqa: E402
from tools.bench import cases  # noqa: E402

Row = dict[str, str]
NOT_MEASURED = "Not yet measured."


def main(results: str = "tools/bench/results", page: str = "docs/bench.md") -> None:
    """Fill the page.

    Args:
        results: folder of the CSV files, relative to the repository.
        page: the document, relative to the repository.
    """
    for name in cases.names():
        insert(ROOT / page, f"bench-{name}", section(name, ROOT / results / f"{name}.csv"))


def section(name: str, path: Path) -> str:
    """Return what the page shows of a case.

    Args:
        name: of the case.
        path: its rows, which need not exist.
    """
    rows: list[Row] = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    return tables(rows, any(problem.device != "cpu" for problem in cases.load(name).problems))


def tables(rows: list[Row], is_for_gpu: bool = True) -> str:
    """Return a Markdown table for each device.

    Args:
        rows: of one case, oldest first.
        is_for_gpu: the case has problems for a GPU, measured or not.
    """
    places = dict.fromkeys((row["device"], row["threads"]) for row in rows)
    parts = [table([row for row in rows if (row["device"], row["threads"]) == place]) for place in places]
    gpu = [] if any(threads == "0" for _, threads in places) else [f"On a GPU: {NOT_MEASURED.lower()}"]
    gpu = gpu if is_for_gpu else ["There is no form for a GPU."]
    return "\n\n".join([*parts, *gpu]) if rows else NOT_MEASURED


def table(rows: list[Row]) -> str:
    """Return the table of one device.

    Args:
        rows: of one case and device, oldest first. The latest measurement of a problem counts, as a whole.
    """
    columns = list(rows[0])
    keys = columns[columns.index("case") + 1 : columns.index("implementation")]
    problems: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        known = problems.setdefault(tuple(row[key] for key in keys), {})
        if known and next(iter(known.values()))["date"] != row["date"]:
            known.clear()
        known[row["implementation"]] = row
    names = list(dict.fromkeys(name for forms in problems.values() for name in forms))
    varying = [i for i in range(len(keys)) if len({problem[i] for problem in problems}) > 1]
    queued = [forms.get(names[0], {}).get("queued_ms", "nan") for forms in problems.values()]
    has_queued = any(value != "nan" for value in queued)
    head = [*(keys[i] for i in varying), *(f"{name}, ms" for name in names), *["queued, ms"][: int(has_queued)]]
    head += ["times faster", "memory, MiB"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for (problem, forms), alone in zip(problems.items(), queued, strict=True):
        times = [_number(forms[name]["median_ms"]) if name in forms else "" for name in names]
        times += ["" if alone == "nan" else _number(alone)][: int(has_queued)]
        cells = [*(problem[i] for i in varying), *times, *_against(names[0], forms)]
        lines.append(f"| {' | '.join(cells)} |")
    last = rows[-1]
    place = last["device"] + (f", {last['threads']} threads" if last["threads"] != "0" else "")
    same = ", ".join(f"{keys[i]} {rows[0][keys[i]]}" for i in range(len(keys)) if i not in varying)
    return "\n".join([f"**{place}**, torch {last['torch']}{'; ' + same if same else ''}", "", *lines])


def _against(own: str, forms: dict[str, Row]) -> tuple[str, str]:
    """How many times faster than the fastest and the slowest alternative, and memory of ours and of the leanest."""
    others = [row for name, row in forms.items() if name != own]
    if own not in forms or not others:
        return "", _number(forms[own]["peak_mib"]) if own in forms else ""
    ratios = sorted(float(row["median_ms"]) / float(forms[own]["median_ms"]) for row in others)
    least = min(float(row["peak_mib"]) for row in others)
    span = _number(str(ratios[0])) + (f" to {_number(str(ratios[-1]))}" if len(ratios) > 1 else "")
    return span, f"{_number(forms[own]['peak_mib'])} (others from {_number(str(least))})"


def _number(value: str) -> str:
    """Three digits."""
    number = float(value)
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    fire.Fire(main)
