# SPDX-License-Identifier: Apache-2.0
"""The tables of a sweep as Markdown, and the place of such text in a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from fewlabel.errors import ConfigError
from fewlabel.evidence.efficiency import Efficiency, efficiency
from fewlabel.evidence.plan import Plan
from fewlabel.evidence.rows import Row, require_same_settings
from fewlabel.evidence.statistics import Paired, Summary, Values, paired, summarize, values
from fewlabel.files import atomic

_CLAIMS_HEAD = (
    "| claim | labels | difference, points [95 % interval] | sd | better on | verdict |",
    "|---|---|---|---|---|---|",
)


def markdown(plan: Plan, rows: Sequence[Row], metric: str | None = None) -> str:
    """Return the tables of a sweep.

    The first table has a row a variant and a column a budget (mean ± sd over replicates); the second compares every
    variant with the baseline; the third, where the plan makes claims, the two variants of each, at every budget and
    by their mean over all of them; the last, where the plan names further metrics, has a column for each of them.

    Args:
        plan: gives titles, order, baseline and claims.
        rows: of :func:`~fewlabel.evidence.read_rows`.
        metric: a column; None takes the plan's. Shares in [0, 1] are shown in percent.

    Returns:
        Markdown, ending in a newline.

    Raises:
        ConfigError: when rows of one variant were made with different settings.
    """
    require_same_settings(rows)
    metric = metric or plan.metric
    found = values(rows, metric)
    lines = [*_figures(plan, found, metric), "", *_comparisons(plan, found, metric)]
    if claims := list(_claims(plan, found)):
        lines += ["", *_CLAIMS_HEAD, *claims]
    if plan.also and metric == plan.metric:
        lines += ["", *_further(plan, rows)]
    return "\n".join(lines) + "\n"


def comparisons(
    plan: Plan, found: dict[tuple[str, int], Values]
) -> Iterator[tuple[str, int, Paired, Efficiency | None]]:
    """Yield (variant, budget, paired difference, efficiency) for every variant but the baseline.

    Args:
        plan: gives order, baseline and direction.
        found: of :func:`~fewlabel.evidence.statistics.values`.
    """
    curve = {budget: known for (name, budget), known in found.items() if name == plan.baseline}
    for name in plan.variants:
        for budget in sorted(b for variant, b in found if variant == name):
            if name == plan.baseline or budget not in curve:
                continue
            compared = paired(found[name, budget], curve[budget], plan.lower_is_better)
            if compared is not None:
                factor = efficiency(found[name, budget], budget, curve, plan.lower_is_better)
                yield name, budget, compared, factor


def insert(file: str | Path, name: str, text: str) -> bool:
    """Put text between the markers ``<!-- name:begin -->`` and ``<!-- name:end -->`` of a document.

    Args:
        file: the document.
        name: of the markers.
        text: what stands between them afterwards.

    Returns:
        Whether the document changed.

    Raises:
        ConfigError: when the document has no such markers, in this order.
    """
    path = Path(file)
    document = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    head, opened, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise ConfigError(f"{path} has no lines '{begin.strip()}' and '{end}': add them where the table shall stand")
    changed = head + begin + text.rstrip("\n") + "\n" + end + tail
    if changed != document:
        with atomic(path) as temporary:
            temporary.write_text(changed, encoding="utf-8")
    return changed != document


def _figures(plan: Plan, found: dict[tuple[str, int], Values], metric: str) -> Iterator[str]:
    budgets = sorted({budget for _, budget in found})
    yield f"| {metric}, % (mean ± sd) | " + " | ".join(f"{budget} labels" for budget in budgets) + " |"
    yield "|---|" + "---|" * len(budgets)
    counts = {budget: max(len(found[v, b]) for v, b in found if b == budget) for budget in budgets}
    for name, variant in plan.variants.items():
        if not any(v == name for v, _ in found):
            continue
        cells = []
        for budget in budgets:
            known = found.get((name, budget))
            cells.append("" if not known else _cell(summarize(known.values()), counts[budget]))
        yield f"| {variant.title} | " + " | ".join(cells) + " |"


def _further(plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    """A row for each variant and budget, a column for each further metric."""
    found = {metric: values(rows, metric) for metric in plan.also}
    yield "| mean ± sd | labels | " + " | ".join(plan.also.values()) + " |"
    yield "|---|---|" + "---|" * len(plan.also)
    places = {place: max(len(known[place]) for known in found.values()) for place in found[next(iter(plan.also))]}
    for name, variant in plan.variants.items():
        for budget in sorted(b for v, b in places if v == name):
            cells = [
                _cell(summarize(found[metric][name, budget].values()), places[name, budget], 100 if "%" in title else 1)
                for metric, title in plan.also.items()
            ]
            yield f"| {variant.title} | {budget} | " + " | ".join(cells) + " |"


def _cell(summary: Summary, expected: int, scale: float = 100) -> str:
    spread = f" ± {scale * summary.sd:.1f}" if summary.count > 1 else ""
    return f"{scale * summary.mean:.1f}{spread}" + (f" (n = {summary.count})" if summary.count < expected else "")


def _claims(plan: Plan, found: dict[tuple[str, int], Values]) -> Iterator[str]:
    """A row for each claim and budget, and one for the mean over budgets; claims without rows are left out."""
    for claim, pair in plan.claims.items():
        budgets = sorted(b for name, b in found if name == pair[0] and (pair[1], b) in found)
        ones, others = ([found[name, budget] for budget in budgets] for name in pair)
        rows = list(zip(map(str, budgets), ones, others, strict=True))
        if len(budgets) > 1:
            rows.append(("mean", _mean_over_budgets(ones), _mean_over_budgets(others)))
        for label, one, other in rows:
            if (compared := paired(one, other, plan.lower_is_better)) is not None:
                difference, spread = _difference(compared)
                better = f"{compared.better} of {compared.count}"
                yield f"| {claim} | {label} | {difference} | {spread} | {better} | {compared.verdict} |"


def _mean_over_budgets(side: Sequence[Values]) -> Values:
    """Average the replicates that every budget has."""
    common = set.intersection(*(set(known) for known in side))
    return {replicate: fmean(known[replicate] for known in side) for replicate in common}


def _difference(compared: Paired) -> tuple[str, str]:
    """Return the mean difference with its interval, in points, and the standard deviation."""
    mean = f"{100 * compared.mean:+.1f}"
    if compared.count < 2:
        return mean, ""
    return f"{mean} [{100 * compared.low:+.1f}, {100 * compared.high:+.1f}]", f"{100 * compared.sd:.1f}"


def _comparisons(plan: Plan, found: dict[tuple[str, int], Values], metric: str) -> Iterator[str]:
    title = plan.variants[plan.baseline].title
    yield (
        f"| against {title} | labels | difference, points [95 % interval] | sd | better on | by fold "
        "| label-efficiency factor | verdict |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, budget, compared, factor in comparisons(plan, found):
        difference, spread = _difference(compared)
        folds = ", ".join(f"{fold or 'all'} {100 * mean:+.1f}" for fold, mean in compared.by_fold.items())
        yield (
            f"| {plan.variants[name].title} | {budget} | {difference} | {spread} | "
            f"{compared.better} of {compared.count} | {folds} | {factor or ''} | {compared.verdict} |"
        )
