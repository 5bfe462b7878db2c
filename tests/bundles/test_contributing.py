# SPDX-License-Identifier: Apache-2.0
"""The page "add a method in one afternoon": the files that it shows make a bundle that keeps the contract and works."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from tests.bundles.contract import check_bundle
from tests.docs._pages import blocks, files_of_page
from tests.guards import test_house_style as house
from tests.guards._tree import ROOT, refuse

import fewlabel.engines.steps
import fewlabel.losses

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAME = "endoscopic_tool_segmentation_entropy"
TINY = {"spatial_size": [32, 48], "batch_size": 2, "channels": [4, 8]}
STEPS = {"max_epochs": 1, "epoch_length": 2}
ADDED = ("fewlabel.losses.entropy", "fewlabel.engines.steps.entropy_minimization")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Do what the page says in a copy of the repository, and let ``fewlabel`` find the modules that it adds."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("bundles", "common"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("models", "output", "__pycache__"))
    (copying,) = [block.text for block in blocks(PAGE, "bash") if NAME in block.text]
    subprocess.run(["bash", "-euc", copying], cwd=root, check=True)
    for name, content in files_of_page(PAGE).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    package = root / "common" / "fewlabel"
    with pytest.MonkeyPatch.context() as patch:
        for module, folder in ((fewlabel.losses, "losses"), (fewlabel.engines.steps, "engines/steps")):
            patch.setattr(module, "__path__", [*module.__path__, str(package / folder)])
        yield root
        for name in ADDED:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def bundle(tree: Path) -> Path:
    return tree / "bundles" / NAME


def work(bundle: Path, kind: str, names: tuple[str, ...], **keys: Any) -> Path:
    """Run a workflow in this process; return its output folder."""
    folder = bundle / "output" / str(keys.pop("place", "method"))
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in names],
        workflow_type=kind,
        logging_file=False,
        **{"bundle_root": str(bundle), "device": "cpu", "output_dir": str(folder), **TINY, **keys},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return folder


def test_bundle_keeps_the_contract(bundle: Path) -> None:
    refuse(check_bundle(bundle), NAME)


@pytest.fixture(scope="module")
def trained(bundle: Path) -> Path:
    return work(bundle, "train", ("train", "light"), **STEPS)


def history(folder: Path) -> dict[str, str]:
    (row,) = csv.DictReader((folder / "history.csv").open(newline="", encoding="utf-8"))
    return row


def test_bundle_works(bundle: Path, trained: Path) -> None:
    row = history(trained)
    assert float(row["loss"]) == pytest.approx(float(row["supervised"]) + 0.1 * float(row["entropy"]), abs=1e-4)
    work(bundle, "train", ("train", "light", "evaluate"), **STEPS)
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["list"], metrics["cases"]) == ("test", 16)
    work(bundle, "infer", ("inference", "light"))
    masks = sorted(trained.glob("predictions/*_mask.png"))
    assert len(masks) == 16 and Image.open(masks[0]).size == (320, 240)


def test_baseline_has_no_term_of_the_method(bundle: Path, trained: Path) -> None:
    folder = work(bundle, "train", ("train", "light"), place="baseline", method_enabled="false", **STEPS)
    assert history(folder)["loss"] == history(folder)["supervised"]
    assert history(folder).keys() == history(trained).keys() - {"entropy"}
    weights = [torch.load(place / "models" / "model.pt", weights_only=True) for place in (folder, trained)]
    assert weights[0].keys() == weights[1].keys()


def test_code_of_the_page_keeps_the_style(tree: Path) -> None:
    files = sorted((tree / name) for name in files_of_page(PAGE) if name.endswith(".py"))
    assert len(files) == 3
    for rule in ("undocumented", "unannotated", "unlicensed", "swallowed"):
        checked = [file for file in files if "tests" not in file.parts or rule == "unlicensed"]
        refuse([f"{f.name}:{n}: {text}" for f in checked for n, text in house.RULES[rule][0](f)], rule)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *map(str, files)]
        done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_unit_test_of_the_page_passes(tree: Path) -> None:
    scope: dict[str, Any] = {}
    exec((tree / "tests" / "losses" / "test_entropy.py").read_text(encoding="utf-8"), scope)
    tests = [value for name, value in scope.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()
