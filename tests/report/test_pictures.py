# SPDX-License-Identifier: Apache-2.0
"""The floor of reports draws with the functions of the floor of transforms."""

from __future__ import annotations

from fewlabel import report
from fewlabel.transforms import overlay as drawing


def test_reports_draw_with_the_functions_of_the_transforms() -> None:
    assert report.overlay is drawing.overlay and report.montage is drawing.montage
