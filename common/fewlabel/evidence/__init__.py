# SPDX-License-Identifier: Apache-2.0
"""Evidence: what a method gains over its baseline at equal labels, with the spread that the labels themselves cause.

A *replicate* is one fold (a group left out: an operation, a patient) and one draw of labels. All variants run on the
same replicates, so that differences are paired. :class:`Plan` says what to compare, :class:`Sweep` runs what is
missing and appends to a CSV, :func:`markdown` and :func:`draw_curve` show what came out.
"""

from __future__ import annotations

from fewlabel.evidence.curve import draw_curve
from fewlabel.evidence.efficiency import Efficiency, efficiency
from fewlabel.evidence.plan import Plan, Run, Variant, read_plan
from fewlabel.evidence.rows import Row, append_row, read_rows
from fewlabel.evidence.statistics import Paired, Summary, paired, summarize
from fewlabel.evidence.sweep import Sweep
from fewlabel.evidence.tables import insert, markdown

__all__ = [
    "Efficiency",
    "Paired",
    "Plan",
    "Row",
    "Run",
    "Summary",
    "Sweep",
    "Variant",
    "append_row",
    "draw_curve",
    "efficiency",
    "insert",
    "markdown",
    "paired",
    "read_plan",
    "read_rows",
    "summarize",
]
