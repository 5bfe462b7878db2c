# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep: what was compared, what came out, and what one may conclude from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from fewlabel.evidence import Efficiency, Paired, Plan, Row, summarize
from fewlabel.evidence.curve import curve_figure
from fewlabel.evidence.rows import require_same_settings, run_of
from fewlabel.evidence.statistics import Values, values
from fewlabel.evidence.tables import comparisons
from fewlabel.report import figures
from fewlabel.report.page import Cell, Column, Table, counted, duration, number, render

_ABOUT = frozenset("variant label_budget fold draw list cases steps settings machine torch commit".split())
_WHERE = ("machine", "torch", "commit", "settings", "steps", "list")
_POINTS = 100  # shares are shown in percent


def sweep_page(plan: Plan, rows: Sequence[Row], metric: str) -> str:
    """Return the page.

    Args:
        plan: as in :func:`~fewlabel.report.write_sweep`.
        rows: of :func:`~fewlabel.evidence.read_rows`.
        metric: a column.

    Raises:
        ConfigError: when rows of one variant were made with different settings.
    """
    require_same_settings(rows)
    found = values(rows, metric)
    compared = list(comparisons(plan, found))
    curve = curve_figure(plan, rows, metric, ink=figures.INK)
    drawn = any(len({b for v, b in found if v == name}) > 1 for name in plan.variants)
    context = {
        "plan": plan,
        "title": plan.bundle.name,
        "metric": metric,
        "figures": _figures(plan, found),
        "basis": _basis(plan, rows),
        "missing": _missing(plan, rows),
        "fixed": _fixed(plan, rows),
        "variants": _variants(plan, found),
        "curve": Markup(figures.inline_svg(curve, f"{metric} against labels", "curve")) if drawn else "",
        "means": _means(plan, found),
        "forests": _forests(plan, compared, metric),
        "compared": _compared(plan, compared),
        "folds": len({run_of(row).fold for row in rows}),
        "rows": _rows(plan, rows),
        "where": _where(rows),
    }
    return render("sweep.html.jinja", context)


def _figures(plan: Plan, found: Mapping[tuple[str, int], Values]) -> list[dict[str, str]]:
    """The baseline at each budget: the figures that everything else is held against."""
    shown = []
    for budget in sorted(b for name, b in found if name == plan.baseline):
        summary = summarize(found[plan.baseline, budget].values())
        spread = "" if math.isnan(summary.sd) else f"sd {_POINTS * summary.sd:.1f}"
        shown.append({"text": f"{_POINTS * summary.mean:.1f}", "name": counted(budget, "label"), "sd": spread})
    return shown


def _basis(plan: Plan, rows: Sequence[Row]) -> str:
    replicates = len({run_of(row).replicate for row in rows})
    cases = Counter(row.get("cases", "") for row in rows).most_common(1)
    scored = f", {cases[0][0]} cases scored in each" if cases and cases[0][0] else ""
    title, many = plan.variants[plan.baseline].title, counted(replicates, "replicate")
    return f"{title}, mean of {many} (fold and label draw){scored}."


def _missing(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Name runs of the plan that are not there; of optional variants none is missed."""
    if not plan.folds and any(run_of(row).fold for row in rows):
        return []
    there = {run_of(row) for row in rows}
    absent = Counter(run.variant for run in plan.runs() if run not in there)
    return [f"{plan.variants[name].title}: {counted(count, 'run')}" for name, count in absent.items()]


def _fixed(plan: Plan, rows: Sequence[Row]) -> list[tuple[str, str]]:
    folds = sorted({run_of(row).fold for row in rows} - {""})
    keys = ", ".join(f"{name} {value}" for name, value in plan.keys.items())
    facts = [
        ("bundle", plan.bundle.name),
        ("profile", ", ".join(f"{name}.json" for name in plan.profile)),
        ("metric", f"{plan.metric}, {'lower' if plan.lower_is_better else 'higher'} is better"),
        ("baseline", plan.variants[plan.baseline].title),
        ("budgets", ", ".join(map(str, plan.budgets))),
        ("folds", f"held out in turn: {', '.join(folds)}" if folds else "the data list's own validation"),
        ("label draws", ", ".join(map(str, plan.draws))),
        ("keys of all", keys),
    ]
    return [(name, value) for name, value in facts if value]


def _variants(plan: Plan, found: Mapping[tuple[str, int], Values]) -> list[tuple[str, str]]:
    there = {name for name, _ in found}
    said = []
    for name, variant in plan.variants.items():
        changes = [f"{overlay}.json" for overlay in variant.overlays]
        changes += [f"--{key} {value}" for key, value in variant.keys.items()]
        if name in there:
            said.append((variant.title, " ".join(changes) or "defaults"))
    return said


def _means(plan: Plan, found: Mapping[tuple[str, int], Values]) -> Table:
    budgets = sorted({budget for _, budget in found})
    most = {b: max(len(known) for (_, budget), known in found.items() if budget == b) for b in budgets}
    rows = []
    for name, variant in plan.variants.items():
        if not any(v == name for v, _ in found):
            continue
        cells = [Cell(variant.title)]
        for budget in budgets:
            known = found.get((name, budget))
            if not known:
                cells.append(Cell("", math.nan))
                continue
            summary = summarize(known.values())
            spread = "" if math.isnan(summary.sd) else f" ± {_POINTS * summary.sd:.1f}"
            few = f" (n = {summary.count})" if summary.count < most[budget] else ""
            cells.append(Cell(f"{_POINTS * summary.mean:.1f}{spread}{few}", summary.mean))
        rows.append(cells)
    columns = [Column("variant", False), *(Column(counted(budget, "label"), True) for budget in budgets)]
    return Table("Mean and standard deviation of every variant", columns, rows)


def _forests(
    plan: Plan, compared: Sequence[tuple[str, int, Paired, Efficiency | None]], metric: str
) -> list[tuple[str, Markup]]:
    """One chart a budget: differences to the baseline with their intervals."""
    label = f"{metric} minus that of the baseline, percentage points, 95 % interval"
    charts = []
    for budget in sorted({budget for _, budget, _, _ in compared}):
        rows = [
            (plan.variants[name].title, _POINTS * p.mean, _POINTS * p.low, _POINTS * p.high)
            for name, b, p, _ in compared
            if b == budget
        ]
        charts.append((counted(budget, "label"), Markup(figures.forest(rows, f"forest{budget}", label))))
    return charts


def _compared(plan: Plan, compared: Sequence[tuple[str, int, Paired, Efficiency | None]]) -> Table:
    names = (
        "variant",
        "labels",
        "difference",
        "95 % interval",
        "sd",
        "better on",
        "by fold",
        "label efficiency",
        "verdict",
    )
    columns = [Column(name, name in ("labels", "difference", "sd")) for name in names]
    rows = []
    for name, budget, found, factor in compared:
        low, high = (number(_POINTS * bound, digits=1, sign=True).text for bound in (found.low, found.high))
        folds = ", ".join(
            f"{fold or 'all'} {number(_POINTS * m, 1, sign=True).text}" for fold, m in found.by_fold.items()
        )
        rows.append(
            [
                Cell(plan.variants[name].title),
                Cell(str(budget), float(budget)),
                number(_POINTS * found.mean, digits=1, sign=True),
                Cell(f"{low} to {high}" if found.count > 1 else ""),
                number(_POINTS * found.sd, digits=1),
                Cell(f"{found.better} of {found.count}", found.better / found.count),
                Cell(folds),
                Cell(str(factor or ""), factor.factor if factor else math.nan),
                Cell(found.verdict),
            ]
        )
    return Table("Differences to the baseline", columns, rows)


def _rows(plan: Plan, rows: Sequence[Row]) -> Table:
    """Every run with all its figures."""
    metrics = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in _ABOUT]
    columns = [Column("variant", False), Column("labels", True), Column("fold", False), Column("draw", True)]
    columns += [Column(name, True) for name in metrics]
    table = []
    for row in rows:
        run = run_of(row)
        title = plan.variants[run.variant].title if run.variant in plan.variants else run.variant
        head = [Cell(title), Cell(str(run.label_budget), float(run.label_budget)), Cell(run.fold)]
        figures_of_run = [number(float(row[name]) if row.get(name) else math.nan) for name in metrics]
        table.append([*head, Cell(str(run.draw), float(run.draw)), *figures_of_run])
    return Table("All runs", columns, table)


def _where(rows: Sequence[Row]) -> list[tuple[str, str]]:
    seconds = 60 * sum(float(row.get("wall_minutes") or 0) for row in rows)
    about = [(name, _count(rows, name)) for name in _WHERE if any(row.get(name) for row in rows)]
    return [*about, ("processor time", f"{duration(seconds)} in {counted(len(rows), 'run')}")]


def _count(rows: Sequence[Row], name: str) -> str:
    """Distinct values of a column, with how many rows have each when there are several."""
    counts = Counter(row.get(name, "") for row in rows)
    return ", ".join(f"{value or '?'} ({count})" if len(counts) > 1 else value for value, count in counts.items())
