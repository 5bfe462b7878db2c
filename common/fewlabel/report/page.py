# SPDX-License-Identifier: Apache-2.0
"""What the pages share: templates, numbers as text, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jinja2

import fewlabel
from fewlabel.report.run import mean_sd

MINUS = "\N{MINUS SIGN}"


class Cell(NamedTuple):
    """A cell of a table.

    Args:
        text: what is read.
        value: what is sorted by; None sorts by the text.
    """

    text: str
    value: float | None = None


class Column(NamedTuple):
    """A column of a table.

    Args:
        name: its head.
        number: whether it holds numbers, which stand at the right and sort as such.
    """

    name: str
    number: bool


@dataclass(frozen=True)
class Table:
    """A table that a click sorts.

    Args:
        label: what it is, for readers that cannot see it.
        columns: the heads.
        rows: the rows.
        foot: rows that stay at the foot.
    """

    label: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Sequence[Cell]] = ()


def table(label: str, words: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[float]]) -> Table:
    """Make a table of columns of words, then columns of numbers, with mean and sd of the numbers at its foot.

    Args:
        label: what it is.
        words: texts by name of the column.
        numbers: numbers by name of the column, all columns of one length.
    """
    columns = [*(Column(name, False) for name in words), *(Column(name, True) for name in numbers)]
    texts = [[Cell(text) for text in column] for column in words.values()]
    digits = [0 if is_whole(column) else 4 for column in numbers.values()]
    values = [[number(v, d) for v in column] for column, d in zip(numbers.values(), digits, strict=True)]
    blank = [Cell("")] * (len(words) - 1)
    moments = [[number(m, d or 1) for m in mean_sd(c)] for c, d in zip(numbers.values(), digits, strict=True)]
    foot = [[Cell(name), *blank, *(pair[i] for pair in moments)] for i, name in enumerate(("mean", "sd"))]
    return Table(label, columns, list(zip(*texts, *values, strict=True)), foot)


def number(value: float, digits: int = 4, sign: bool = False) -> Cell:
    """Return a number as a cell, a dash where there is none.

    Args:
        value: any number.
        digits: decimals; large numbers lose them, tiny ones are written with an exponent.
        sign: write the plus too.

    Example:
        >>> number(0.25, sign=True).text, number(42.0, digits=0).text
        ('+0.2500', '42')
    """
    if math.isnan(value):
        return Cell("\N{EN DASH}", value)
    if math.isinf(value):
        return Cell("\N{INFINITY}" if value > 0 else f"{MINUS}\N{INFINITY}", value)
    plus, size = "+" if sign else "", abs(value)
    if 0 < size < 0.5 * 10**-digits:
        text = f"{value:{plus}.1e}"
    else:
        text = f"{value:{plus},.{0 if size >= 1000 else digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return Cell(text.replace("-", MINUS), value)


def is_whole(values: Sequence[float]) -> bool:
    """Whether all values are whole numbers, and some larger than 1, as counts are."""
    finite = [value for value in values if math.isfinite(value)]
    return all(value == int(value) for value in finite) and any(abs(value) > 1 for value in finite)


def duration(seconds: float) -> str:
    """Return seconds in words.

    Example:
        >>> duration(42), duration(212), duration(7500)
        ('42 s', '3 min 32 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, ``1 case`` or ``2 cases``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package; whatever is not marked as safe is escaped, whatever is missing raises.

    Args:
        template: its name in ``templates/``.
        context: what it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fewlabel.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(**context, version=fewlabel.__version__, now=now)
