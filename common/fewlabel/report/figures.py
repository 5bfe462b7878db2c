# SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG: glyphs are paths, colors are the page's own, so they look the same with any font and theme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewlabel.report.run import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
# Stand-ins that matplotlib draws with; in the page each becomes a variable of its style sheet.
INK, FAINT, RUN, OTHER = "#000001", "#000002", "#000003", "#000004"
_VARIABLES = {INK: "currentColor", FAINT: "var(--line)", RUN: "var(--accent)", OTHER: "var(--other)"}
# Name spaces, size in points, metadata and comments are for files; a style element would be everybody's.
_NOT_INLINE = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->| (?:xmlns(?::xlink)?|version)="[^"]*"'
    r'| width="[\d.]+pt" height="[\d.]+pt"',
    flags=re.S,
)
_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_WIDTH_IN, _FONT_PT = 11.2, 8.5
_DOTS = 300  # above, a histogram says more than dots


def curves(series: Mapping[str, Curve], ids: str, others: Mapping[str, Curve] | None = None, columns: int = 4) -> str:
    """Draw every series in a small panel of its own over epochs.

    Args:
        series: (epochs, values) by name.
        ids: what the ids in the SVG begin with; no two charts of a page share it.
        others: the same series of another run, drawn behind where it has them.
        columns: panels in a row.

    Returns:
        ``<svg>...</svg>``; empty without series.
    """
    if not series:
        return ""
    rows = math.ceil(len(series) / columns)
    figure = _figure(1.75 * rows)
    for number, (name, (epochs, values)) in enumerate(series.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        if others and name in others:
            axes.plot(*others[name], color=OTHER, linewidth=1.2, linestyle=(0, (3, 2)))
        marker = "o" if len(epochs) < 30 else ""
        axes.plot(epochs, values, color=RUN, linewidth=1.6, marker=marker, markersize=2.6)
        axes.set_title(name, loc="left", fontsize=_FONT_PT + 0.5, color=INK, parse_math=False)
        axes.set_title(f"{values[-1]:.4g}", loc="right", fontsize=_FONT_PT + 0.5, color=RUN)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.locator_params(axis="y", nbins=4)
        _quiet(axes)
        if number > len(series) - columns:
            axes.set_xlabel("epoch", fontsize=_FONT_PT, color=INK)
    return inline_svg(figure, "Curves over epochs: " + ", ".join(series), ids)


def strips(groups: Mapping[str, Sequence[float]], ids: str, label: str, zero: bool = False) -> str:
    """Draw where values lie: a dot a case, or bars when there are many, with mean (line) and median (dotted).

    Args:
        groups: values by name of the row; the first is the run, others stand below it in gray.
        ids: as in :func:`curves`.
        label: what the axis shows.
        zero: mark zero, for differences.

    Returns:
        ``<svg>...</svg>``; empty without values that are numbers.
    """
    rows = {name: np.array([v for v in values if math.isfinite(v)]) for name, values in groups.items()}
    rows = {name: values for name, values in rows.items() if len(values)}
    if not rows:
        return ""
    everything = np.concatenate([*rows.values(), np.zeros(int(zero))])
    margin = 0.02 * float(np.ptp(everything)) or 0.05
    span = (float(everything.min()) - margin, float(everything.max()) + margin)
    figure = _figure(0.55 + 0.62 * len(rows))
    axes = figure.add_subplot(1, 1, 1)
    for place, (name, values) in enumerate(rows.items()):
        _strip(axes, values, -float(place), RUN if place == 0 else OTHER, span)
        axes.text(span[0] - margin, -place, name, ha="right", va="center", fontsize=_FONT_PT, color=INK)
    if zero:
        axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_xlim(*span)
    axes.set_ylim(-len(rows) + 0.45, 0.55)
    axes.set_xlabel(label, fontsize=_FONT_PT, color=INK, parse_math=False)
    axes.set_yticks([])
    _quiet(axes)
    axes.spines["left"].set_visible(False)
    return inline_svg(figure, f"Distribution: {label}", ids)


def forest(rows: Sequence[tuple[str, float, float, float]], ids: str, label: str) -> str:
    """Draw mean differences with their intervals, one below the other, zero marked.

    Args:
        rows: (name, mean, low, high), the first on top; an interval of NaN is not drawn. Those without zero in their
            interval are in the accent color, all others gray.
        ids: as in :func:`curves`.
        label: what the axis shows.

    Returns:
        ``<svg>...</svg>``; empty without rows.
    """
    if not rows:
        return ""
    figure = _figure(0.6 + 0.27 * len(rows))
    axes = figure.add_subplot(1, 1, 1)
    for place, (_, mean, low, high) in enumerate(rows):
        color = RUN if low > 0 or high < 0 else OTHER
        axes.plot([low, high], [-place] * 2, color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot([mean], [-place], marker="o", markersize=5.5, color=color)
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlabel(label, fontsize=_FONT_PT, color=INK, parse_math=False)
    _quiet(axes)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_yticks([-place for place in range(len(rows))], [name for name, *_ in rows])
    axes.spines["left"].set_visible(False)
    return inline_svg(figure, f"Differences: {label}", ids)


def _strip(axes: Axes, values: Values, y: float, color: str, span: tuple[float, float]) -> None:
    if len(values) > _DOTS:
        counts, edges = np.histogram(values, bins=60, range=span)
        axes.bar(edges[:-1], 0.8 * counts / counts.max(), np.diff(edges), y - 0.4, align="edge", color=color, alpha=0.6)
    else:
        offsets = swarm(values, span)
        axes.plot(values, y + offsets, linestyle="", marker="o", markersize=4, color=color, alpha=0.6, mew=0)
    axes.plot([values.mean()] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=1.4)
    axes.plot([np.median(values)] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=1.0, linestyle=(0, (1.5, 1.5)))


def swarm(values: Values, span: tuple[float, float]) -> Values:
    """Return offsets in -0.4..0.4 that set dots of nearly equal values apart: deterministic, symmetric about 0.

    Args:
        values: shape (N,).
        span: ends of the axis, by which nearness is judged.
    """
    bins = np.floor((values - span[0]) / max(span[1] - span[0], 1e-12) * 120).astype(int)
    offsets = np.zeros(len(values))
    for one in np.unique(bins):
        places = np.flatnonzero(bins == one)
        offsets[places] = np.arange(len(places)) - (len(places) - 1) / 2
    return offsets * min(0.16, 0.4 / max(float(np.abs(offsets).max(initial=0)), 1e-12))


def _figure(height_in: float) -> Figure:
    from matplotlib.figure import Figure  # matplotlib costs a third of a second, and most runs of a bundle draw nothing

    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _quiet(axes: Axes) -> None:
    """Thin axes without a frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=_FONT_PT - 0.5, color=FAINT, labelcolor=INK, length=3)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def inline_svg(figure: Figure, description: str, ids: str) -> str:
    """Return a chart for a page: no name space, no metadata, ids of its own, colors by variables.

    Args:
        figure: drawn with ``INK``, ``FAINT``, ``RUN`` and ``OTHER`` for what follows the page's theme.
        description: what it shows, for readers that cannot see it.
        ids: as in :func:`curves`.
    """
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": ids}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = _NOT_INLINE.sub("", text[text.index("<svg") :]).replace("xlink:href", "href")
    text = _IDS.sub(lambda found: f"{found[1]}{ids}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    head = f'class="chart" role="img" aria-label="{escape(description, quote=True)}"'
    return text.replace("<svg", f"<svg {head}", 1)
