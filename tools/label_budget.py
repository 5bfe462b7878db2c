# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the variants of a bundle's ``configs/experiments.json`` over budgets and label draws.

Usage: ``python tools/label_budget.py --dataset_dir DIR --datalist dataset.json --csv_file FILE [--variants a,b]``.
One row a run is appended to the CSV; rows that are there are skipped, so a sweep that was stopped goes on where it
was. Settings, the last iterate and the threshold are those of the configs: nothing is chosen on the reported list.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fire
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("variant", "label_budget", "split_seed")
Row = dict[str, str]


def _listed(value: Any) -> list[str]:
    """Read ``a,b``, ``(1, 2)`` or ``3``, whatever python-fire made of it."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return [str(part).strip() for part in parts]


def _monai(bundle: Path, run_id: str, configs: Iterable[str], keys: dict[str, Any], log: Path) -> None:
    """Run a workflow as a user would; its output goes to a log."""
    files = "[" + ",".join(f"'configs/{name}.json'" for name in configs) + "]"
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files]
    command += [text for key, value in keys.items() for text in (f"--{key}", str(value))]
    with log.open("a", encoding="utf-8") as stream:
        code = subprocess.run(command, cwd=bundle, stdout=stream, stderr=subprocess.STDOUT).returncode
    if code:
        raise SystemExit(f"{run_id} failed: see {log}")


def _run(bundle: Path, profile: list[str], variant: dict[str, Any], keys: dict[str, Any], folder: Path) -> Row:
    """Train and evaluate once; returns metrics and minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {**variant.get("keys", {}), **keys, "output_dir": folder, "ckpt_dir": folder / "models"}
    configs = [*profile, *variant.get("overlays", [])]
    _monai(bundle, "training", configs, keys, folder / "log.txt")
    _monai(bundle, "evaluating", [*configs, "evaluate"], keys, folder / "log.txt")
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    row = {"list": found["list"], "cases": str(found["cases"])}
    row |= {name: f"{value:.4f}" for name, value in found["metrics"].items()}
    # Summed over epochs, so that a run that was stopped and resumed counts whole, without its start-up.
    seconds = sum(float(epoch["seconds"]) for epoch in _read(folder / "history.csv"))
    steps = record["keys"]["max_epochs"] * record["keys"]["epoch_length"]
    row |= {"training_minutes": f"{seconds / 60:.2f}", "steps": str(steps)}
    return row | {"torch": record["versions"]["torch"], "commit": str(record["commit"])[:10]}


def _read(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _append(file: Path, row: Row) -> None:
    new = not file.is_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _table(rows: list[Row], metric: str) -> Iterator[str]:
    """Mean and spread over label draws, as Markdown."""
    values = defaultdict(list)
    minutes = defaultdict(list)
    for row in rows:
        values[row["variant"], row["label_budget"]].append(100 * float(row[metric]))
        minutes[row["variant"], row["label_budget"]].append(float(row["training_minutes"]))
    yield f"| variant | labels | {metric}, % (mean ± sd) | draws | training minutes |"
    yield "|---|---|---|---|---|"
    for (variant, budget), found in values.items():
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        mean = statistics.mean(minutes[variant, budget])
        yield f"| {variant} | {budget} | {statistics.mean(found):.1f}{spread} | {len(found)} | {mean:.1f} |"


def sweep(
    dataset_dir: str = "",
    datalist: str = "datalist.json",
    csv_file: str = "results.csv",
    bundle: str = "endoscopic_tool_segmentation_mms",
    variants: Any = None,
    budgets: Any = None,
    split_seeds: Any = None,
    runs_dir: str = "",
    metric: str = "mean_dice",
    **keys: Any,
) -> None:
    """Run what is missing of the sweep and print the table.

    Args:
        dataset_dir: folder of the data; empty takes the phantoms.
        datalist: its data list.
        csv_file: rows are appended here.
        bundle: name of a folder in ``bundles/``.
        variants: names out of ``experiments.json``, separated by commas; all by default.
        budgets: label budgets; those of ``experiments.json`` by default.
        split_seeds: label draws; those of ``experiments.json`` by default.
        runs_dir: where the runs' folders go; by default ``output/sweep`` of the bundle.
        metric: of the printed table.
        **keys: further config keys for every run, such as ``--max_epochs 40``.
    """
    root = ROOT / "bundles" / bundle
    plan = json.loads((root / "configs" / "experiments.json").read_text(encoding="utf-8"))
    names = _listed(variants) if variants else list(plan["variants"])
    if unknown := [name for name in names if name not in plan["variants"]]:
        raise SystemExit(f"unknown variant {unknown[0]}: experiments.json has {', '.join(plan['variants'])}")
    draws = _listed(plan["split_seeds"] if split_seeds is None else split_seeds)
    sizes = _listed(plan["budgets"] if budgets is None else budgets)
    file, folder = Path(csv_file), Path(runs_dir).absolute() if runs_dir else root / "output" / "sweep"
    done = {tuple(row[k] for k in KEYS) for row in _read(file)}
    todo = [(v, b, s) for s in draws for b in sizes for v in names if (v, b, s) not in done]
    if dataset_dir:
        keys["dataset_dir"] = Path(dataset_dir).absolute()
    for name, budget, seed in tqdm(todo, unit="run"):
        place = folder / f"{name}-{budget}-{seed}"
        given = {**keys, "datalist": datalist, "label_budget": budget, "split_seed": seed, "seed": seed}
        row = _run(root, plan["profile"], plan["variants"][name], given, place)
        _append(file, dict(zip(KEYS, (name, budget, seed), strict=True)) | row)
    print("\n".join(_table(_read(file), metric)))


if __name__ == "__main__":
    fire.Fire(sweep)
