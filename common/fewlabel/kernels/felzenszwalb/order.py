# SPDX-License-Identifier: Apache-2.0
"""Stable sort of edges by weight: radix sort of float32 keys, then repair where float64 weights round to one key."""

from __future__ import annotations

import numpy as np

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.felzenszwalb._types import LOW32, Doubles, Longs

__all__ = ["sort"]

_DIGIT = 12  # most bits sorted by in one pass
_INSERTION = 32  # longest run of equal keys sorted by insertion


@compiled
def sort(records: Longs, counts: Longs, weights: Doubles, buffer: Longs, other: Longs) -> Longs:
    """Sort by weight; equal weights keep their order, row after row.

    Args:
        records: (E, capacity), of which the first ``counts`` entries of each row count.
        counts: (E,).
        weights: weight of the edge of a record.
        buffer: work space for all records.
        other: the same again.

    Returns:
        The sorted records: the beginning of ``buffer`` or of ``other``.
    """
    total = counts.sum()
    least, passes, digit = _digits(records, counts)
    places = _places(records, counts, least, passes, digit)
    mask = (1 << digit) - 1
    for row in range(counts.size):
        _deal(records[row, : counts[row]], buffer, places[0], least, 32, mask)
    source, target = buffer[:total], other[:total]
    for number in range(1, passes):
        _deal(source, target, places[number], least, 32 + number * digit, mask)
        source, target = target, source
    _repair(source, weights)
    return source


@compiled
def _digits(records: Longs, counts: Longs) -> tuple[int, int, int]:
    """Least record, number of passes, and bits per pass, for keys counted from the least."""
    least, most = 2**63 - 1, 0
    for row in range(counts.size):
        for record in records[row, : counts[row]]:
            least = min(least, record)
            most = max(most, record)
    least &= ~LOW32
    bits = 1
    while (max(most - least, 0) >> 32) >> bits:
        bits += 1
    passes = (bits + _DIGIT - 1) // _DIGIT
    return least, passes, (bits + passes - 1) // passes


@compiled
def _places(records: Longs, counts: Longs, least: int, passes: int, digit: int) -> Longs:
    """Where the records of each digit begin, for each pass."""
    mask = (1 << digit) - 1
    places = np.zeros((passes, 1 << digit), np.int64)
    for row in range(counts.size):
        for record in records[row, : counts[row]]:
            key = (record - least) >> 32
            for number in range(passes):
                places[number, (key >> (number * digit)) & mask] += 1
    for number in range(passes):
        begin = 0
        for value in range(mask + 1):
            count = places[number, value]
            places[number, value] = begin
            begin += count
    return places


@compiled
def _deal(source: Longs, target: Longs, places: Longs, least: int, shift: int, mask: int) -> None:
    """One pass of the radix sort."""
    for record in source:
        digit = ((record - least) >> shift) & mask
        target[places[digit]] = record
        places[digit] += 1


@compiled
def _repair(records: Longs, weights: Doubles) -> None:
    """Sort runs of equal keys by weight, in place, stably."""
    begin = 0
    while begin < records.size:
        key = records[begin] >> 32
        end = begin + 1
        ordered = True
        while end < records.size and records[end] >> 32 == key:
            ordered &= weights[records[end - 1] & LOW32] <= weights[records[end] & LOW32]
            end += 1
        if not ordered:
            _sort_run(records[begin:end], weights)
        begin = end


@compiled
def _sort_run(run: Longs, weights: Doubles) -> None:
    if run.size > _INSERTION:
        heavy = np.empty(run.size)
        for i in range(run.size):
            heavy[i] = weights[run[i] & LOW32]
        run[:] = run[np.argsort(heavy, kind="mergesort")]
        return
    for i in range(1, run.size):
        record, j = run[i], i
        weight = weights[record & LOW32]
        while j > 0 and weights[run[j - 1] & LOW32] > weight:
            run[j] = run[j - 1]
            j -= 1
        run[j] = record
