# SPDX-License-Identifier: Apache-2.0
"""Run folders made by hand: what trainings and evaluations leave behind, without either."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewlabel.report.run import mean_sd

SCORES = (0.5, 0.25, 0.875, 0.75, 0.125, 0.625)
CONFIG = {
    "imports": ["$import os"],
    "dataset_dir": "frames",
    "label_budget": 4,
    "budget_unit": "item",
    "split_seed": 1,
    "group_key": "video",
    "spatial_size": [96, 128],
    "device": "$fewlabel.bundle.auto_device()",
    "max_epochs": 3,
    "epoch_length": 20,
    "seed": 2,
    "method_enabled": True,
    "labeled_augmentation": "$'weak' if @method_enabled else 'paper'",
    "package": "fewlabel",
    "train": {"method": {"_target_": "fewlabel.engines.MinMaxSimilarityStep"}},
}


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def trained(folder: Path, epochs: int = 3, **keys: Any) -> Path:
    """Write what a training leaves; ``keys`` change the config."""
    config = CONFIG | keys
    resolved = {key: value for key, value in config.items() if isinstance(value, (int, str, bool))}
    resolved |= {"labeled_augmentation": "weak" if config["method_enabled"] else "paper", "device": "cpu"}
    record = {
        "started": "2026-01-02T03:04:05+00:00",
        "command": ["/venv/site-packages/monai/bundle/__main__.py", "run", "training", "--config_file", "['a.json']"],
        "keys": resolved,
        "config": config,
        "bundle": "Tools in <frames>",
        "versions": {"fewlabel": "0.1.0", "timm": None},
        "commit": "0123456789abcdef",
        "machine": {"name": "A processor", "platform": "Linux", "threads": 1, "gpus": []},
    }
    write_json(folder / "run.json", record)
    item = {"image": "images/a.png", "label": "masks/a.png", "video": "v0"}
    lists = {"labeled": [item] * 4, "unlabeled": [{"image": "u.png"}] * 7, "validation": [item]}
    split = {"source": "list.json", "label_budget": 4, "budget_unit": "item", "split_seed": 1}
    write_json(folder / "split.json", split | lists)
    rows: list[dict[str, Any]] = [
        {"epoch": n, "loss": 4 / n, "supervised": 3 / n, "lr": 0.1, "seconds": 20.5} for n in range(1, epochs + 1)
    ]
    for row in rows:
        row["mean_dice"] = 0.1 * row["epoch"] if row["epoch"] % 2 == 0 else ""
    write_table(folder / "history.csv", rows)
    return folder


def evaluated(
    folder: Path,
    scores: Sequence[float] = SCORES,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    **about: Any,
) -> Path:
    """Write what an evaluation leaves, but for pictures; ``about`` changes metrics.json."""
    names = names or [f"v{i % 2}/f{i}.png" for i in range(len(scores))]
    groups = groups or [f"v{i % 2}" for i in range(len(scores))]
    rows = [
        {
            "case": name,
            "video": group,
            "mean_dice": score,
            "mae": 1 - score,
            "pixels": round(1000 * score) if math.isfinite(score) else 0,
        }
        for name, group, score in zip(names, groups, scores, strict=True)
    ]
    found = {
        "list": "test",
        "cases": len(rows),
        "settings": {"threshold": 0.5},
        "key_metric": "mean_dice",
        "better": "higher",
        "group_key": "video",
        "columns": {"mean_dice": ["mean_dice"], "mae": ["mae"], "pixels": ["pixels"]},
        "metrics": {"mean_dice": mean_sd(scores)[0], "mae": 1 - mean_sd(scores)[0], "pixels": 12345.0},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", found | about)
    write_table(folder / "metrics_per_case.csv", rows)
    return folder


def pictured(folder: Path, names: Sequence[str] = ("v0/f4.png", "v0/f0.png", "v0/f2.png"), size: int = 32) -> Path:
    """Write three examples of noise."""
    noise = np.random.default_rng(0)
    examples = []
    for group, name in zip(("worst", "median", "best"), names, strict=True):
        files = {panel: f"{group}_1_{panel}.jpg" for panel in ("image", "label", "prediction")}
        (folder / "examples").mkdir(parents=True, exist_ok=True)
        for file in files.values():
            pixels = noise.integers(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "examples" / file)
        examples.append({"group": group, "case": name, "score": 0.5, "slice": [3, 9], "files": files})
    about = {"metric": "mean_dice", "class_names": ["background", "tool"], "colors": [[86, 180, 233]]}
    write_json(folder / "examples" / "index.json", about | {"examples": examples})
    return folder


def whole(folder: Path, **keys: Any) -> Path:
    """Write a run that lacks nothing."""
    return pictured(evaluated(trained(folder, **keys)))


class Page(HTMLParser):
    """A page, read: text by section, tables, attributes; ends of tags are checked."""

    VOID = frozenset("meta img br wbr path use rect link input hr".split())

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    @property
    def text(self) -> str:
        """Everything that is read, without scripts and styles."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of an attribute of all tags of a kind that have it."""
        return [found[name] for kind, found in self.tags if kind == tag and name in found]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self.tables[-1][-1][-1] += data
