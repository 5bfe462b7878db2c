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
from pathlib import Path

import fire
import numpy as np
from PIL import Image

from fewlabel.report import montage, write

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {"method": (), "baseline": ("--method_enabled", "false")}
FRAMES, COLUMNS = 8, 4


def _run(bundle: Path, run_id: str, configs: tuple[str, ...], folder: Path, extra: tuple[str, ...]) -> None:
    """Run one workflow of the bundle as a user would."""
    files = "[" + ",".join(f"'configs/{name}.json'" for name in configs) + "]"
    where = folder.relative_to(bundle)
    command = ["-m", "monai.bundle", "run", run_id, "--config_file", files]
    command += ["--output_dir", str(where), "--ckpt_dir", str(where / "models"), *extra]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    if subprocess.run([sys.executable, *command], cwd=bundle).returncode:
        raise SystemExit(f"demo: `{run_id}` failed; its message is above")


def _figures(folder: Path) -> list[dict[str, str]]:
    """Collect what the trainings and evaluations of all variants wrote, a row a variant."""
    rows = []
    for name in VARIANTS:
        found = json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))
        with (folder / name / "history.csv").open(newline="", encoding="utf-8") as stream:
            seconds = sum(float(row["seconds"]) for row in csv.DictReader(stream))
        scores = {key: f"{value:.4f}" for key, value in found["metrics"].items()}
        about = {"variant": name, "list": found["list"], "cases": str(found["cases"])}
        rows.append(about | scores | {"training_seconds": f"{seconds:.0f}"})
    return rows


def _table(rows: list[dict[str, str]]) -> str:
    """The figures as text, a column a variant."""
    keys = [key for key in rows[0] if key not in ("variant", "list", "cases")]
    head = f"{rows[0]['cases'] + ' ' + rows[0]['list'] + ' cases':<18}"
    lines = [head + "".join(f"{row['variant']:>12}" for row in rows)]
    return "\n".join(lines + [f"{key:<18}" + "".join(f"{row[key]:>12}" for row in rows) for key in keys])


def _picture(folder: Path) -> Path:
    """Put overlays of the same frames by both variants one above the other."""
    files = {v: sorted((folder / v / "predictions").rglob("*_overlay.png")) for v in VARIANTS}
    count = min(len(found) for found in files.values())
    chosen = np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int))
    columns = min(COLUMNS, len(chosen))
    chosen = chosen[: len(chosen) // columns * columns].reshape(-1, columns)
    cells = [(v, files[v][i]) for row in chosen for v in VARIANTS for i in row]
    pictures = [np.asarray(Image.open(file).convert("RGB")) for _, file in cells]
    captions = [f"{v}: {file.stem.removesuffix('_overlay')}" for v, file in cells]
    target = folder / "overlays.png"
    Image.fromarray(montage(pictures, columns, captions)).save(target)
    return target


def demo(bundle: str = "endoscopic_tool_segmentation_mms") -> None:
    """Train, evaluate and infer on phantoms, method and baseline; print where pictures and figures are.

    Args:
        bundle: name of a folder in ``bundles/``.
    """
    root = ROOT / "bundles" / bundle
    folder = root / "output" / "demo"
    for name, extra in VARIANTS.items():
        place = folder / name
        _run(root, "training", ("train", "light"), place, extra)
        _run(root, "evaluating", ("train", "light", "evaluate"), place, extra)
        _run(root, "inference", ("inference", "light"), place, ())
    rows = _figures(folder)
    with (folder / "figures.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture = _picture(folder)
    page = write(folder / "method", baseline=folder / "baseline")
    print(f"\n{_table(rows)}")
    print("\nPhantoms show that everything runs; they say nothing about how good a method is on real images.")
    print(f"report     {page}")
    print(f"pictures   {picture}\n           {folder}/*/predictions/\nfigures    {folder / 'figures.csv'}")
    print(f"run record {folder}/*/run.json, split.json, history.csv, metrics_per_case.csv")


if __name__ == "__main__":
    fire.Fire(demo)
