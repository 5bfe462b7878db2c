# SPDX-License-Identifier: Apache-2.0
"""Run a bundle end to end on its built-in phantoms: train, train the baseline, evaluate both, infer, show.

Usage: ``python tools/demo.py [--bundle NAME]``. Every command is printed as it could be typed. A second call finds
the trained models and only evaluates; delete the printed folder to train again.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import fire
import numpy as np
from PIL import Image

from fewlabel.report import montage

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {"method": (), "baseline": ("--method_enabled", "false")}
FRAMES = 8


def _run(bundle: Path, run_id: str, configs: tuple[str, ...], folder: Path, extra: tuple[str, ...]) -> float:
    """Run one workflow of the bundle as a user would; returns its seconds."""
    files = "[" + ",".join(f"'configs/{name}.json'" for name in configs) + "]"
    where = folder.relative_to(bundle)
    command = ["-m", "monai.bundle", "run", run_id, "--config_file", files]
    command += ["--output_dir", str(where), "--ckpt_dir", str(where / "models"), *extra]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    began = time.perf_counter()
    if subprocess.run([sys.executable, *command], cwd=bundle).returncode:
        raise SystemExit(f"demo: `{run_id}` failed; its message is above")
    return time.perf_counter() - began


def _figures(folder: Path, seconds: dict[str, float]) -> list[dict[str, str]]:
    """Collect what both evaluations wrote into one table."""
    rows = []
    for name in VARIANTS:
        metrics = json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))
        scores = {k: f"{v:.4f}" for k, v in metrics["metrics"].items()}
        rows.append({"variant": name, "list": metrics["list"], "cases": str(metrics["cases"]), **scores})
        rows[-1]["training_seconds"] = f"{seconds[name]:.0f}"
    return rows


def _picture(folder: Path) -> Path:
    """Put the same frames' overlays of both variants one above the other."""
    names = {v: sorted((folder / v / "predictions").rglob("*_overlay.png")) for v in VARIANTS}
    chosen = np.linspace(0, len(names["method"]) - 1, FRAMES).round().astype(int)
    pictures = [np.asarray(Image.open(names[v][i]).convert("RGB")) for v in VARIANTS for i in chosen]
    captions = [f"{v}: {names[v][i].stem.removesuffix('_overlay')}" for v in VARIANTS for i in chosen]
    target = folder / "overlays.png"
    Image.fromarray(montage(pictures, FRAMES // 2, captions)).save(target)
    return target


def demo(bundle: str = "endoscopic_tool_segmentation_mms") -> None:
    """Train, evaluate and infer on phantoms, method and baseline; print where pictures and figures are.

    Args:
        bundle: name of a folder in ``bundles/``.
    """
    root = ROOT / "bundles" / bundle
    folder = root / "output" / "demo"
    seconds = {}
    for name, extra in VARIANTS.items():
        place = folder / name
        seconds[name] = _run(root, "training", ("train", "light"), place, extra)
        _run(root, "evaluating", ("train", "light", "evaluate"), place, extra)
        _run(root, "inference", ("inference", "light"), place, ())
    rows = _figures(folder, seconds)
    with (folder / "figures.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture = _picture(folder)
    print(f"\n{'':<18}" + "".join(f"{row['variant']:>12}" for row in rows))
    for key in rows[0].keys() - {"variant", "list", "cases"}:
        print(f"{key:<18}" + "".join(f"{row[key]:>12}" for row in rows))
    print("\nPhantoms show that everything runs; they say nothing about how good a method is on real images.")
    print(f"pictures   {picture}\n           {folder}/*/predictions/\nfigures    {folder / 'figures.csv'}")
    print(f"run record {folder}/*/run.json, split.json, history.csv, metrics_per_case.csv")


if __name__ == "__main__":
    fire.Fire(demo)
