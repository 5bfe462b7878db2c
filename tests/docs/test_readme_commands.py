# SPDX-License-Identifier: Apache-2.0
"""The commands of all documents: those marked ``run`` run as they stand, all others name what exists.

They run in a copy of the repository whose ``light.json`` trains two steps, beside a folder ``my_frames`` of a few drawn
frames. Nothing in the text is replaced.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from PIL import Image
from tests.docs._pages import PAGES, Block, blocks
from tests.guards._tree import ROOT, refuse, shown

from fewlabel.bundle.keys import check_keys, check_run_id
from fewlabel.data import phantoms
from fewlabel.errors import ConfigError

TINY = {"max_epochs": 1, "epoch_length": 2, "batch_size": 2}
PROMISED = {  # files that the text around the block promises
    "README.md": ["predictions/0*_mask.png", "predictions/0*_overlay.png"],
    "bundles/endoscopic_tool_segmentation_mms/docs/README.md": ["predictions/*_mask.png", "predictions/*_overlay.png"],
    "bundles/multi_organ_ct_segmentation_lrc/docs/README.md": ["stages/*/pretrained.pt", "predictions/*_mask.nii.gz"],
    "bundles/pathology_nuclei_segmentation_psm/docs/README.md": ["stages/*/mask", "predictions/*_instances.png"],
}
KNOWN = ("cp", "mkdir", "export", "curl", "monailabel")  # commands of which nothing is checked
RECORDS = "metrics.json metrics_per_case.csv history.csv run.json split.json models/model.pt models/model.safetensors"
FOUND = [(page, block) for page in PAGES for block in blocks(page.read_text(encoding="utf-8"), "bash")]
RUN = [(page, block) for page, block in FOUND if block.mark == "run"]


def _id(value: Path | Block) -> str:
    return shown(value) if isinstance(value, Path) else f"line {value.line}"


def home(page: Path) -> Path:
    """Return the folder whose reader a page addresses: that of the bundle, or the repository."""
    return page.parents[1] if page.parent.name == "docs" and page.is_relative_to(ROOT / "bundles") else ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what commands use and make frames; the same for all blocks, so that one may build on another."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "bundles", root / "bundles", ignore=shutil.ignore_patterns("models", "output"))
    for file in root.glob("bundles/*/configs/light.json"):
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | TINY))
    drawn = phantoms.folder()
    items = json.loads((drawn / "datalist.json").read_text(encoding="utf-8"))["training"][:40:5]
    for number, item in enumerate(items):
        for key, folder, count in (("image", "images", 8), ("label", "masks", 6)):
            (root / "my_frames" / folder).mkdir(parents=True, exist_ok=True)
            if number < count:
                shutil.copy(drawn / item[key], root / "my_frames" / folder / f"{number:02d}.png")
    (root / "bin").mkdir()
    (root / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (root / "bin" / "python").chmod(0o755)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), RUN, ids=_id)
def test_commands_run_as_they_stand(page: Path, block: Block, copy: Path) -> None:
    folder = copy / home(page).relative_to(ROOT)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{copy / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", block.text], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{shown(page)}:{block.line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    bundle = next(copy.glob("bundles/endoscopic*")) if folder == copy else folder
    output = bundle / "output" / ("my_frames" if folder == copy else "light")
    missing = [name for name in [*RECORDS.split(), *PROMISED[shown(page)]] if not list(output.glob(name))]
    refuse(missing, f"{shown(page)} promises files that are not there")
    masks = sorted(output.glob("predictions/*_mask.png"))
    if not masks:
        return
    assert len(masks) == (8 if folder == copy else 16)
    assert {Image.open(mask).size for mask in masks} == {(320, 240)}


def test_something_runs_and_everything_is_marked() -> None:
    assert {shown(page) for page, _ in RUN} == set(PROMISED)
    unmarked = [f"{shown(page)}:{block.line}" for page, block in FOUND if block.mark is None]
    refuse(unmarked, "before a bash block stands <!-- run --> or <!-- not run: reason -->")


@pytest.mark.parametrize(("page", "block"), FOUND, ids=_id)
def test_commands_name_what_exists(page: Path, block: Block) -> None:
    refuse(list(problems(block.text, home(page), runs=block.mark == "run")), f"{shown(page)}:{block.line}")


def problems(text: str, folder: Path, runs: bool = False) -> Iterator[str]:
    """Yield what is wrong with the commands of a block without running them; ``folder`` is where they are typed."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["cd"]:
            folder = folder / words[1]
            yield from [f"{words[1]} is no folder"] * (not folder.is_dir())
        elif "monai.bundle" in words:
            yield from _workflow_problems(words[words.index("monai.bundle") + 1 :], folder)
            if runs and "training" in words and "light.json" not in line:
                yield f"a training without light.json would take hours: {line}"
        elif words[:1] == ["make"]:
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            yield from (f"make has no target {word}" for word in words[1:] if f"\n{word}: " not in targets)
        elif words[:2] == ["python", "-c"]:
            ast.parse(words[2])
        elif words[:1] == ["python"]:
            yield from _tool_problems(words[1:], folder)
        elif words[1:3] == ["-m", "pytest"]:
            yield from (f"{word} does not exist" for word in words[3:] if not (ROOT / word).exists())
        elif words and words[0] not in KNOWN and "=" not in words[0]:
            yield f"{words[0]} is a command that this test does not know"


def _workflow_problems(words: list[str], folder: Path) -> Iterator[str]:
    options = dict(zip(words[2::2], words[3::2], strict=True))
    if bad := [name for name in options if not name.startswith("--")]:
        yield f"{bad[0]} is no option"
        return
    names = options.pop("--config_file").strip("[]").replace("'", "").split(",")
    files = [folder / name for name in names]
    if missing := [name for name, file in zip(names, files, strict=True) if not file.is_file()]:
        yield f"{', '.join(missing)} does not exist"
        return
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    parser.update({name.removeprefix("--"): value for name, value in options.items()})
    parser.parse()
    try:
        check_keys(parser.get(), files[0].parent)
        check_run_id(parser.get(), words[1])
    except ConfigError as error:
        yield error.message


def _tool_problems(words: list[str], folder: Path) -> Iterator[str]:
    file = folder / words[0]
    if not file.is_file():
        yield f"{words[0]} does not exist"
        return
    functions = {f.name: f for f in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(f, ast.FunctionDef)}
    chosen = [functions[word] for word in words[1:2] if word in functions]  # a tool with several commands
    known = {arg.arg for f in chosen or functions.values() for arg in (*f.args.args, *f.args.kwonlyargs)}
    names = [word.removeprefix("--") for word in words if word.startswith("--")]
    yield from (f"{words[0]} has no option --{name}" for name in names if name not in known)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make demos", "make has no target demos"),
        ("python tools/make_lists.py --images x", "tools/make_lists.py does not exist"),
        ("python tools/make_datalist.py --image x", "tools/make_datalist.py has no option --image"),
        ("python tools/label_budget.py table --jobs 2", "tools/label_budget.py has no option --jobs"),
        ("cd bundles/none", "bundles/none is no folder"),
        ("pip install x", "pip is a command that this test does not know"),
        ("{run} trainings --config_file configs/train.json", "unknown run id 'trainings': did you mean 'training'?"),
        ("{run} training --config_file configs/trains.json", "configs/trains.json does not exist"),
        ("{run} training --config_file configs/train.json --epocs 1", "unknown key 'epocs'"),
        ("{run} training --config_file configs/train.json", "a training without light.json"),
    ],
)
def test_planted_mistake_is_found(command: str, problem: str) -> None:
    run = f"cd bundles/{next(ROOT.glob('bundles/*/configs')).parent.name}\npython -m monai.bundle run"
    found = list(problems(command.format(run=run), ROOT, runs=True))
    assert any(problem in text for text in found), found
