# SPDX-License-Identifier: Apache-2.0
"""Ceilings over settings: rows, their means, and a file that keeps what others wrote."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fewlabel.evidence.ceilings import ceiling_rows, ceiling_table, write_ceilings
from fewlabel.superpixels import RegionMap

NAMES = {1: "left half", 2: "corner"}


def read(number: int) -> tuple[Any, Any, Any]:
    """A picture of two halves; the first picture has a corner that no region respects."""
    image, labels = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    image[..., 4:], labels[..., :4] = 1, 1
    if number == 0:
        labels[:, :2, 4:6] = 2
    return image, labels, (1.0, 1.0)


def rows(folder: Path, *sizes: int, data: str = "drawn") -> list[dict[str, Any]]:
    wanted = [RegionMap(sigma_mm=0, min_size_mm2=size, folder=folder) for size in sizes]
    return ceiling_rows(data, [0, 1], read, wanted, NAMES)


def test_rows_say_what_unions_reach(tmp_path: Path) -> None:
    fine, coarse = rows(tmp_path, 4, 64)
    assert (fine["images"], fine["dims"], fine["kind"], fine["regions"]) == (2, 2, "felzenszwalb", 2)
    assert fine["left half"] == pytest.approx(1) and fine["corner"] == pytest.approx(2 * 4 / (32 + 4))
    assert fine["mean"] == pytest.approx((fine["left half"] + fine["corner"]) / 2)
    assert coarse["regions"] == 1 and coarse["left half"] == pytest.approx(2 * 32 / (64 + 32))


def test_a_class_that_no_image_has_counts_for_nothing(tmp_path: Path) -> None:
    wanted = [RegionMap(sigma_mm=0, min_size_mm2=4, folder=tmp_path)]
    (row,) = ceiling_rows("drawn", [1], read, wanted, NAMES)
    assert math.isnan(row["corner"]) and row["mean"] == row["left half"] == 1


def test_file_keeps_other_rows(tmp_path: Path) -> None:
    file = tmp_path / "out" / "ceiling.csv"
    write_ceilings(file, rows(tmp_path, 4, 64))
    write_ceilings(file, [row | {"third": 0.5} for row in rows(tmp_path, 4, data="other")])
    write_ceilings(file, [row | {"mean": 0.123456} for row in rows(tmp_path, 64)])
    with file.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [(row["data"], row["min_size"]) for row in found] == [("drawn", "4"), ("drawn", "64"), ("other", "4")]
    assert [row["third"] for row in found] == ["", "", "0.5"] and found[1]["mean"] == "0.123"


def test_table(tmp_path: Path) -> None:
    lines = ceiling_table(rows(tmp_path, 4)).splitlines()
    assert len(lines) == 3 and lines[0].startswith("| dims | kind |") and "| left half |" in lines[0]
    assert lines[2].count("|") == lines[0].count("|") and "| 0.222 |" in lines[2]
