# SPDX-License-Identifier: Apache-2.0
"""Draw time and peak memory against size, log-log, from the committed rows of a case.

Usage: ``python tools/bench/plot.py [--case NAME|all]``. Reads ``tools/bench/results/<case>.csv``, writes
``docs/bench/<case>.png``: one column of panels for each device and kind of problem, one line for each implementation.
Of rows that were measured again, the latest counts. Rows that do not exist are not drawn: a device without a panel has
not been measured.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

import fire  # noqa: E402
import matplotlib  # noqa: E402

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import EngFormatter, NullLocator  # noqa: E402
from PIL import Image  # noqa: E402

Row = dict[str, str]
QUANTITIES = (("median_ms", "time [ms]"), ("peak_mib", "peak memory [MiB]"))
PLACE = ("device", "threads")
ACROSS = 6  # panels beside each other


def main(case: str = "all", results: str = "tools/bench/results", out: str = "docs/bench", size: str = "N") -> None:
    """Draw one case or all.

    Args:
        case: name of a file in ``results`` without suffix, or ``all``.
        results: folder of the CSV files, relative to the repository.
        out: folder of the pictures, relative to the repository.
        size: the column of the horizontal axis; images that state their sides are placed by their pixels.
    """
    folder = ROOT / results
    paths = sorted(folder.glob("*.csv")) if case == "all" else [folder / f"{case}.csv"]
    for path in paths:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        target = ROOT / out / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        draw(rows, size if size in rows[0] else "W", target)
        print(target)


def draw(rows: list[Row], size: str, target: Path) -> None:
    """Draw the rows of a case.

    Args:
        rows: of the CSV.
        size: column of the horizontal axis.
        target: the picture.
    """
    panels = grouped(rows, size)
    width = min(len(panels), ACROSS)
    shape = len(QUANTITIES) * math.ceil(len(panels) / width), width
    figure, axes = pyplot.subplots(*shape, figsize=(1 + 3.6 * width, 3 * shape[0]), squeeze=False, sharey="row")
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    colors = {name: f"C{i}" for i, name in enumerate(names)}
    for number, (title, members) in enumerate(panels.items()):
        block, column = divmod(number, width)
        own = axes[len(QUANTITIES) * block : len(QUANTITIES) * (block + 1), column]
        for axis, (quantity, label) in zip(own, QUANTITIES, strict=True):
            _lines(axis, members, size, quantity, colors)
            axis.set_xlabel("pixels of the batch" if {"dims", "W"} & set(rows[0]) else size)
            if column == 0:
                axis.set_ylabel(label)
        own[0].set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    lines = [Line2D([], [], color=color, marker="o", markersize=4, label=name) for name, color in colors.items()]
    figure.legend(handles=lines, loc="upper center", ncols=len(lines), fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.25 / shape[0]))
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
    Image.open(picture).convert("RGB").quantize(200, dither=Image.Dither.NONE).save(target, optimize=True)


def grouped(rows: list[Row], size: str) -> dict[str, list[Row]]:
    """Return title → rows of a panel: equal device and kind of problem, the latest measurement of each.

    What is written in words tells kinds apart (mode, dtype); so does what is written in numbers where several sizes
    share them, or where rows of one size would fall on each other.

    Args:
        rows: of the CSV, oldest first.
        size: column of the horizontal axis, which tells nothing apart.
    """
    columns = list(rows[0])
    problem = [name for name in columns[columns.index("case") + 1 : columns.index("implementation")] if name != size]
    words = [name for name in problem if not all(row[name].replace(".", "", 1).isdigit() for row in rows)]
    latest = {tuple(row[k] for k in (*PLACE, *problem, size, "implementation")): row for row in rows}
    places = list(dict.fromkeys(row["device"] for row in rows))
    for kinds in (problem, [*words, *_apart(list(latest.values()), words, set(problem) - set(words), size)]):
        panels: dict[str, list[Row]] = {}
        for row in sorted(latest.values(), key=lambda row: places.index(row["device"])):
            place = row["device"] + (f", {row['threads']} threads" if row["threads"] != "0" else "")
            parts = [row[name] if name in words else f"{name} {row[name]}" for name in kinds]
            panels.setdefault("\n".join([place, ", ".join(parts)]), []).append(row)
        if any(len({row[size] for row in members}) > 1 for members in panels.values()):
            break
    return panels


def _apart(rows: list[Row], words: list[str], numbers: set[str], size: str) -> list[str]:
    """Columns in which rows of one kind, place and implementation differ at the same point of the horizontal axis."""
    meeting: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (*(row[name] for name in (*PLACE, *words, "implementation")), _place(row, size))
        meeting.setdefault(key, []).append(row)
    return sorted(name for name in numbers if any(len({row[name] for row in own}) > 1 for own in meeting.values()))


def _place(row: Row, size: str) -> float:
    """Position on the horizontal axis; images of two and three dimensions meet in their number of pixels."""
    if "dims" in row:
        return float(row["B"]) * float(row["N"]) ** int(row["dims"])
    return math.prod(float(row[side]) for side in "BDHW") if "W" in row else float(row[size])


def _lines(axis: Axes, rows: list[Row], size: str, quantity: str, colors: dict[str, str]) -> None:
    """One line for each implementation; quartiles as bars where it is time."""
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = sorted((row for row in rows if row["implementation"] == name), key=lambda row: _place(row, size))
        x, y = [_place(row, size) for row in own], [float(row[quantity]) for row in own]
        bars = None
        if quantity == "median_ms":
            bars = [[v - float(r["q25_ms"]) for v, r in zip(y, own, strict=True)]]
            bars += [[float(r["q75_ms"]) - v for v, r in zip(y, own, strict=True)]]
        axis.errorbar(x, y, yerr=bars, marker="o", markersize=4, capsize=2, color=colors[name])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sorted({_place(row, size) for row in rows}))  # few sizes: each is named
    axis.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(visible=True, which="both", alpha=0.3)


if __name__ == "__main__":
    fire.Fire(main)
