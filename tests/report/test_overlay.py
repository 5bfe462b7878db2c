# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fewlabel.report
from fewlabel.report import overlay
from fewlabel.transforms import overlay as drawing


def test_reports_draw_with_the_functions_of_the_transforms() -> None:
    assert overlay.overlay is drawing.overlay and overlay.montage is fewlabel.report.montage is drawing.montage
