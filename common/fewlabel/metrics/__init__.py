# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and its own under the names that our tables use."""

from __future__ import annotations

from fewlabel.metrics.binary import GlobalDice, binary_scores, key_dice

__all__ = ["GlobalDice", "binary_scores", "key_dice"]
