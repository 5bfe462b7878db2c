# SPDX-License-Identifier: Apache-2.0
"""Imports of ``fewlabel`` only point down its floors, and the lower floors know neither ignite nor MONAI.

From the roof to the ground: the upper block in the order of ``UPPER``, then the four packages of ``MIDDLE`` (one
floor), then ``kernels``, then the modules at the root of the package (``errors``, ``files``). Imports inside of
functions, under ``TYPE_CHECKING``, relative ones and ``import_module("literal")`` count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guards._tree import PACKAGE, python_files, refuse, shown, tree_of

import fewlabel

UPPER = ("report", "evidence", "bundle", "hub", "engines", "handlers", "data", "transforms", "metrics")
MIDDLE = ("networks", "losses", "pseudolabels", "superpixels")
FLOORS = {**{name: 20 - i for i, name in enumerate(UPPER)}, **dict.fromkeys(MIDDLE, 2), "kernels": 1}
OUTSIDE = ("bundles", "tools", "tests")
LOADERS = ("import_module", "__import__", "optional_import")


def imports(path: Path, module: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of whatever the file imports; ``module`` is its own dotted name, split."""
    package = module if path.name == "__init__.py" else module[:-1]
    tree = tree_of(path)
    binds_us = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
            binds_us |= any(alias.name.split(".")[0] == "fewlabel" and not alias.asname for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            head = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*head, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and (literal := _loaded(node)) is not None:
            dots = len(literal) - len(literal.lstrip("."))
            base = package[: len(package) - dots + 1] if dots else []
            yield node.lineno, ".".join([*base, literal.lstrip(".")])
    if binds_us:  # sub-packages load on first use, so `fewlabel.data.x` imports without an import statement
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fewlabel":
                yield node.lineno, f"fewlabel.{node.attr}"


def _loaded(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    return first.value if name in LOADERS and isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def offences(package: Path) -> list[str]:
    """Return one sentence for each import of the package at ``package`` that its floor does not allow."""
    ground = {path.stem for path in package.glob("*.py")} - {"__init__"}
    found = []
    for path in python_files(package):
        module = ["fewlabel", *path.relative_to(package).with_suffix("").parts]
        module = module[:-1] if module[-1] == "__init__" else module
        part = module[1] if len(module) > 1 else ""
        if part and part not in ground and part not in FLOORS:
            found.append(f"{shown(path)}: '{part}' is on no floor: name it in {shown(Path(__file__))}")
            continue
        for line, name in imports(path, module):
            remedy = _refused(name.split("."), part, ground, is_kernel_file=path.stem.split("_")[0] == "triton")
            if remedy is not None:
                found.append(f"{shown(path)}:{line} imports {name}, allowed: {remedy}")
    return found


def _refused(name: list[str], part: str, ground: set[str], is_kernel_file: bool) -> str | None:
    """Return what ``part`` may import when it may not import ``name``, else None."""
    if name[0] in OUTSIDE:
        return "nothing of bundles, tools or tests"
    if name[0] == "triton" and not (is_kernel_file and part == "kernels"):
        return "triton in kernels/<operator>/triton.py and triton_*.py beside it only"
    floor = FLOORS.get(part, 0)
    if name[0] in ("monai", "ignite") and floor <= FLOORS["networks"]:
        if part == "networks":
            return None if name[:2] == ["monai", "networks"] else "of monai only monai.networks, and no ignite"
        return "neither monai nor ignite on this floor"
    if name[0] != "fewlabel":
        return None
    target = name[1] if len(name) > 1 else ""
    if part == "kernels":
        return None if target in ("kernels", "errors") else "of fewlabel only kernels and errors"
    if target in FLOORS and FLOORS[target] > floor:
        below = sorted(other for other in FLOORS if FLOORS[other] <= floor)
        return f"of fewlabel only {', '.join([*below, *sorted(ground)])}"
    return None


def test_imports_point_down() -> None:
    refuse(offences(PACKAGE), "imports only point down")


def test_every_sub_package_loads_on_first_use() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and python_files(path)}
    assert folders | {"errors"} == set(fewlabel._SUBPACKAGES)


PLANTED = {
    "handlers/x.py": ("from fewlabel.engines import Stage", "x.py:1 imports fewlabel.engines.Stage"),
    "transforms/x.py": ("def f():\n    import fewlabel.data.items", "x.py:2 imports fewlabel.data.items"),
    "data/x.py": ("if TYPE_CHECKING:\n    from ..report import page", "x.py:2 imports fewlabel.report.page"),
    "data/__init__.py": ("from ..handlers import x", "imports fewlabel.handlers.x"),
    "metrics/x.py": ("importlib.import_module('fewlabel.data')", "imports fewlabel.data, allowed: of fewlabel only"),
    "metrics/y.py": ("import fewlabel\nfewlabel.bundle.start()", "y.py:2 imports fewlabel.bundle"),
    "losses/x.py": ("from monai.losses import DiceLoss", "neither monai nor ignite"),
    "superpixels/x.py": ("optional_import('ignite.engine')", "neither monai nor ignite"),
    "networks/x.py": ("from monai.networks import nets\nfrom monai import losses", "x.py:2 imports monai.losses"),
    "pseudolabels/x.py": ("from fewlabel import metrics", "imports fewlabel.metrics"),
    "kernels/contrast/x.py": ("from fewlabel.losses import a", "of fewlabel only kernels and errors"),
    "kernels/contrast/y.py": ("from fewlabel.files import atomic", "of fewlabel only kernels and errors"),
    "kernels/contrast/cpu.py": ("import triton.language as tl", "triton_*.py beside it only"),
    "losses/triton.py": ("import triton", "triton in kernels"),
    "files.py": ("from fewlabel.kernels import backend", "files.py:1 imports fewlabel.kernels.backend"),
    "errors.py": ("import monai", "neither monai nor ignite"),
    "engines/x.py": ("from tests.toy import toy_trainer", "nothing of bundles, tools or tests"),
    "attic/x.py": ("import os", "'attic' is on no floor"),
}


@pytest.mark.parametrize("file", PLANTED)
def test_planted_violation_is_found(tmp_path: Path, file: str) -> None:
    source, message = PLANTED[file]
    _plant(tmp_path, file, source)
    _plant(tmp_path, "errors.py" if file != "errors.py" else "files.py", "import os")
    found = offences(tmp_path / "fewlabel")
    assert len(found) == 1 and message in found[0], found


def test_what_points_down_is_allowed(tmp_path: Path) -> None:
    _plant(tmp_path, "errors.py", "import os")
    _plant(tmp_path, "report/x.py", "from fewlabel.transforms.overlay import overlay\nfrom .y import z\nimport monai")
    _plant(tmp_path, "handlers/x.py", "import ignite.distributed\nfrom fewlabel.networks import Twin")
    _plant(
        tmp_path, "networks/x.py", "from monai.networks.nets import UNet\nfrom fewlabel.losses import a\nimport timm"
    )
    _plant(
        tmp_path, "kernels/contrast/triton.py", "import triton\nfrom ..backend import choose\nfrom ...errors import E"
    )
    _plant(tmp_path, "kernels/contrast/__init__.py", "from .triton import x\nimport torch")
    assert offences(tmp_path / "fewlabel") == []


def _plant(folder: Path, file: str, source: str) -> None:
    path = folder / "fewlabel" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
