# SPDX-License-Identifier: Apache-2.0
"""``import fewlabel`` is instant, loads neither torch nor MONAI, and nothing touches a GPU on import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guards._tree import PACKAGE, python_files, refuse, shown, tree_of

import fewlabel

SECONDS = 0.3


def fresh(code: str) -> str:
    """Return what ``code`` prints in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_instant_and_light() -> None:
    code = (
        "import json, sys, time; before = time.process_time(); import fewlabel; seconds = time.process_time() - before;"
        "print(json.dumps([seconds, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    runs = [json.loads(fresh(code)) for _ in range(3)]
    assert not {"torch", "monai", "ignite", "numpy", "timm"} & set(runs[0][1])
    assert min(seconds for seconds, _ in runs) < SECONDS


def test_data_does_not_initialize_cuda() -> None:
    # Where there is no GPU this holds whatever is tried; there, gpu_on_import below still finds the attempt.
    code = (
        "import sys; import fewlabel, fewlabel.data; torch = sys.modules.get('torch');"
        "print(torch is not None and torch.cuda.is_initialized())"
    )
    assert fresh(code).strip() == "False"


def test_unknown_names_are_attribute_errors() -> None:
    for name in ("nonsense", "_private", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(fewlabel, name)
    assert not hasattr(fewlabel, "tests")


def on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: all but the bodies of functions and lambdas."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def gpu_on_import(path: Path) -> list[str]:
    """Return one line for each expression that asks for or uses a GPU when the file is imported."""
    found = []
    for node in on_import(tree_of(path)):
        if isinstance(node, ast.Call):
            text = ast.unparse(node)
            if "torch.cuda." in text or ".cuda(" in text or "'cuda" in text:
                found.append(f"{shown(path)}:{node.lineno}: {text}")
    return found


def test_no_module_asks_for_a_gpu_on_import() -> None:
    refuse(
        [line for path in python_files(PACKAGE) for line in gpu_on_import(path)], "ask for a GPU inside of functions"
    )


def test_planted_gpu_use_is_found(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("X = torch.zeros(3, device='cuda')\ndef f(n=torch.cuda.device_count()):\n    torch.cuda.init()\n")
    assert [line.split(": ")[0] for line in sorted(gpu_on_import(file))] == ["x.py:1", "x.py:2"]
