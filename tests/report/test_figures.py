# SPDX-License-Identifier: Apache-2.0
"""Charts are inline SVG without a font, a name space or a color of their own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fewlabel.report.figures import curves, strips, swarm

SERIES = {"loss": ([1, 2, 3], [3.0, 2.0, 1.0]), "a $b$ <c>": ([2], [0.5])}


@pytest.mark.parametrize(
    "svg",
    [
        curves(SERIES, "x", {"loss": ([1, 2], [2.0, 2.0])}),
        strips({"this run": [0.1, 0.2, 0.2], "baseline": [0.3]}, "x", "mean_dice"),
        strips({"": np.linspace(-1, 1, 1000).tolist()}, "x", "difference", zero=True),
    ],
)
def test_svg_stands_alone_in_a_page(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert {"width", "height"}.isdisjoint(root.attrib) and "viewBox" in root.attrib
    assert "http" not in svg and "<text" not in svg and "font" not in svg and "<style" not in svg
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert all(name.startswith("x-") for name in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(ids)
    assert "var(--accent)" in svg and "currentColor" in svg and not re.search(r"#00000[1-9]", svg)


def test_nothing_to_draw_is_nothing() -> None:
    assert curves({}, "x") == "" and strips({"this run": [float("nan")]}, "x", "y") == ""


def test_same_data_same_picture() -> None:
    assert curves(SERIES, "x") == curves(SERIES, "x")


def test_values_that_are_no_numbers_leave_gaps() -> None:
    assert "<svg" in curves({"loss": ([1, 2, 3], [1.0, float("nan"), 2.0])}, "x")
    assert "<svg" in strips({"this run": [0.5, float("inf")]}, "x", "y") and "<svg" in strips({"": [0.5]}, "x", "y")


def test_dots_of_one_place_stand_apart_and_symmetric() -> None:
    values = np.array([0.5, 0.5, 0.5, 0.9, 0.1])
    offsets = swarm(values, (0.0, 1.0))
    assert len(set(offsets[:3])) == 3 and offsets[:3].sum() == pytest.approx(0) and offsets[3] == offsets[4] == 0
    assert np.abs(swarm(np.full(200, 0.5), (0.0, 1.0))).max() <= 0.4
