# SPDX-License-Identifier: Apache-2.0
"""Pictures and reports of runs."""

from __future__ import annotations

from fewlabel.report.pictures import COLORS, TRUTH_COLOR, montage, overlay

__all__ = ["COLORS", "TRUTH_COLOR", "montage", "overlay"]
