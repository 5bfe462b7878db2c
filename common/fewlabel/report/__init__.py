# SPDX-License-Identifier: Apache-2.0
"""Pictures and reports of runs."""

from __future__ import annotations

from fewlabel.report.overlay import montage

__all__ = ["montage"]
