# SPDX-License-Identifier: Apache-2.0
"""The picture of a sweep: the metric against the number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.evidence.plan import Plan
from fewlabel.evidence.rows import Row
from fewlabel.evidence.statistics import Values, summarize, values
from fewlabel.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which color-blind readers tell apart; the baseline is black.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_OFFSET = 0.018  # of the budget in its logarithm: error bars of one budget stand beside each other


def draw_curve(plan: Plan, rows: Sequence[Row], file: str | Path, metric: str | None = None) -> Path:
    """Draw mean ± sd over replicates against the number of labels, a line for each variant with several budgets.

    Args:
        plan: gives titles, order and baseline.
        rows: of :func:`~fewlabel.evidence.read_rows`.
        file: the picture to write; its suffix (``.png``, ``.svg``) chooses the format.
        metric: a column; None takes the plan's.

    Returns:
        The path written.
    """
    figure = curve_figure(plan, rows, metric)
    with atomic(file) as temporary:
        figure.savefig(temporary, format=Path(file).suffix[1:])
    return Path(file)


def curve_figure(plan: Plan, rows: Sequence[Row], metric: str | None = None, ink: str = "black") -> Figure:
    """Return what :func:`draw_curve` draws.

    Args:
        plan: as there.
        rows: as there.
        metric: as there.
        ink: color of text, axes and baseline.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # slow to import, and only a picture needs it

    metric = metric or plan.metric
    found = values(rows, metric)
    colors: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    )
    with rc_context(colors):
        figure = Figure(figsize=(9.0, 4.2), dpi=140, layout="constrained")
        _draw(figure.add_subplot(), plan, found, metric, ink)
    return figure


def _draw(axes: Axes, plan: Plan, found: dict[tuple[str, int], Values], metric: str, ink: str) -> None:
    lines = {name: line for name in plan.variants if len(line := _line(found, name)) > 1}
    styles = iter(zip(_COLORS, _MARKERS, strict=True))
    for place, (name, line) in enumerate(lines.items()):
        color, marker = (ink, "o") if name == plan.baseline else next(styles, ("#7F7F7F", "."))
        shift = 1 + _OFFSET * (place - (len(lines) - 1) / 2)
        summaries = {budget * shift: summarize(known.values()) for budget, known in line.items()}
        axes.errorbar(
            list(summaries),
            [100 * s.mean for s in summaries.values()],
            yerr=[100 * s.sd if s.count > 1 else 0.0 for s in summaries.values()],
            label=plan.variants[name].title,
            color=color,
            marker=marker,
            linestyle="--" if name == plan.baseline else "-",
            linewidth=1.6,
            markersize=5,
            capsize=2,
            elinewidth=0.8,
        )
    _dress(axes, sorted({budget for line in lines.values() for budget in line}), metric)


def _line(found: dict[tuple[str, int], Values], name: str) -> dict[int, Values]:
    return {budget: found[v, budget] for v, budget in sorted(found) if v == name}


def _dress(axes: Any, budgets: Sequence[int], metric: str) -> None:
    """Label the axes; the logarithmic one shows doublings of labels as equal steps."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [str(budget) for budget in budgets], minor=False)
    axes.set_xlabel("labels")
    axes.set_ylabel(f"{metric}, % (mean ± sd over replicates)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
