# SPDX-License-Identifier: Apache-2.0
"""A bundle that has nothing but a plan, and rows as a sweep writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabel.evidence import Plan, Row, read_plan

PLAN: dict[str, Any] = {
    "profile": ["train", "light"],
    "keys": {"val_interval": 100},
    "metric": "mean_dice",
    "baseline": "supervised",
    "budgets": [4, 8, 16],
    "folds": ["A", "B"],
    "draws": [0, 1],
    "variants": {
        "supervised": {"title": "plain", "keys": {"method_enabled": False}},
        "method": {"title": "the method", "overlays": ["twist"]},
        "ablation": {"budgets": [8], "keys": {"weight": 0}},
        "pool": {"budgets": [8], "optional": True, "keys": {"datalist": "other.json"}},
    },
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with the plan and the configs that it names."""
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    for name in ("train", "light", "twist"):
        (configs / f"{name}.json").write_text(json.dumps({"max_epochs": len(name)}))
    (configs / "experiments.json").write_text(json.dumps(PLAN))
    return tmp_path / "bundle"


@pytest.fixture
def plan(bundle: Path) -> Plan:
    return read_plan(bundle)


@pytest.fixture
def table(plan: Plan) -> Callable[[dict[str, dict[int, list[float]]]], list[Row]]:
    """Make rows from figures by variant and budget, one for each replicate."""

    def make(figures: dict[str, dict[int, list[float]]]) -> list[Row]:
        replicates = [(fold, draw) for fold in plan.folds for draw in plan.draws]
        return [
            {"variant": v, "label_budget": str(b), "fold": fold, "draw": str(draw), "mean_dice": str(value)}
            for v, budgets in figures.items()
            for b, found in budgets.items()
            for (fold, draw), value in zip(replicates, found, strict=False)
        ]

    return make
