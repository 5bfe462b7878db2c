# SPDX-License-Identifier: Apache-2.0
"""The caps of the house: short files and functions, documented and annotated, nothing swallowed or left for later."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.guards._tree import PACKAGE, ROOT, python_files, refuse, shown, text_of, tracked_files, tree_of

FILE_LINES, FUNCTION_LINES, LAUNCHER_LINES = 400, 60, 80
LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
EVERYTHING = ("Exception", "BaseException")
LICENSE = "# SPDX-License-Identifier: Apache-2.0"
SOURCES = (*python_files(PACKAGE), *python_files(ROOT / "tools"))
ALL_PYTHON = (*SOURCES, *python_files(ROOT / "tests"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[Path], Iterator[tuple[int, str]]]


def long_files(path: Path) -> Iterator[tuple[int, str]]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > FILE_LINES:
        yield lines, f"{lines} lines, cap {FILE_LINES}"


def long_functions(path: Path) -> Iterator[tuple[int, str]]:
    cap = LAUNCHER_LINES if path.name == "triton.py" else FUNCTION_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > cap:
                yield node.lineno, f"{node.name} has a body of {length} lines, cap {cap}"


def undocumented(path: Path) -> Iterator[tuple[int, str]]:
    tree = tree_of(path)
    if ast.get_docstring(tree) is None:
        yield 1, "module without a docstring"
    if not path.name.startswith("_") or path.name == "__init__.py":
        yield from _undocumented_in(tree)


def _undocumented_in(parent: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    for node in parent.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_") or _is_exempt(node):
            continue
        if ast.get_docstring(node) is None:
            yield node.lineno, f"public {node.name} without a docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_in(node)


def _is_exempt(node: Function | ast.ClassDef) -> bool:
    names = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


def unannotated(path: Path) -> Iterator[tuple[int, str]]:
    tree = tree_of(path)
    methods = {id(child) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
    for node in ast.walk(tree):
        if not isinstance(node, Function) or any("jit" in ast.unparse(d) for d in node.decorator_list):
            continue  # parameters of compiled kernels are pointers and constants
        args = [*node.args.posonlyargs, *node.args.args]
        static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
        args = args[1:] if id(node) in methods and not static else args
        args += [*node.args.kwonlyargs, *(a for a in (node.args.vararg, node.args.kwarg) if a)]
        bare = [a.arg for a in args if a.annotation is None] + ["return"] * (node.returns is None)
        if bare:
            yield node.lineno, f"{node.name} lacks annotations of {', '.join(bare)}"


def swallowed(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            nothing = all(isinstance(s, ast.Pass) or ast.unparse(s) == "..." for s in node.body)
            bare = node.type is None and not any(isinstance(n, ast.Raise) for n in ast.walk(node))
            if nothing or bare:
                yield node.lineno, "an exception is swallowed: handle it, or catch less"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
            yield from (
                (node.lineno, f"suppress({name}): name the error")
                for name in map(ast.unparse, node.args)
                if name in EVERYTHING
            )


def unimplemented(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield node.lineno, "NotImplementedError: implement it, or make it abstract"


def left_for_later(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate((text_of(path) or "").splitlines(), 1):
        if found := LATER.search(line):
            yield number, f"{found.group()}: do it, or write an issue"


def unlicensed(path: Path) -> Iterator[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = lines[1:2] if lines and lines[0].startswith("#!") else lines[:1]
    if head != [LICENSE]:
        yield 1, f"the first line is not '{LICENSE}'"


RULES: dict[str, tuple[Rule, tuple[Path, ...]]] = {
    "long_files": (long_files, ALL_PYTHON),
    "long_functions": (long_functions, ALL_PYTHON),
    "undocumented": (undocumented, python_files(PACKAGE)),
    "unannotated": (unannotated, SOURCES),
    "swallowed": (swallowed, ALL_PYTHON),
    "unimplemented": (unimplemented, SOURCES),
    "left_for_later": (left_for_later, tuple({*ALL_PYTHON, *tracked_files()})),
    "unlicensed": (unlicensed, ALL_PYTHON),
}


@pytest.mark.parametrize("name", RULES)
def test_house(name: str) -> None:
    rule, files = RULES[name]
    refuse([f"{shown(path)}:{line}: {text}" for path in sorted(files) for line, text in rule(path)], name)


GOOD = f'''{LICENSE}
"""Module."""


class Good:
    """Documented."""

    def __init__(self, x: int) -> None:
        self.x = x

    @staticmethod
    def make(*xs: int, **options: int) -> None:
        """Make nothing."""
        try:
            print(xs)
        except OSError:
            raise

    @property
    def size(self) -> int:
        """Size."""

        def _inner(a: int) -> int:
            return a

        return _inner(3)


def _private(x: int) -> int:
    return x
'''
BAD = [
    ("long_files", "x = 1\n" * 401),
    ("long_functions", "def f() -> None:\n    '''Doc.'''\n" + "    print()\n" * 61),
    ("undocumented", "x = 1\n"),
    ("undocumented", "'''Module.'''\nclass A:\n    '''Doc.'''\n    def f(self) -> None:\n        print()\n"),
    ("unannotated", "def f(a, b: int) -> int:\n    return a\n"),
    ("unannotated", "class A:\n    def f(self, **options: int):\n        return options\n"),
    ("swallowed", "try:\n    print()\nexcept ValueError:\n    pass\n"),
    ("swallowed", "try:\n    print()\nexcept:\n    print()\n"),
    ("swallowed", "with contextlib.suppress(OSError, Exception):\n    print()\n"),
    ("unimplemented", "def f() -> None:\n    raise NotImplementedError\n"),
    ("left_for_later", "x = 1  # TO" + "DO: better\n"),
    ("unlicensed", "'''Module.'''\n"),
]


@pytest.mark.parametrize(("name", "source"), BAD)
def test_planted_offence_is_found(tmp_path: Path, name: str, source: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    (tmp_path / "good.py").write_text(GOOD)
    rule, _ = RULES[name]
    assert len(list(rule(tmp_path / "bad.py"))) == 1
    assert list(rule(tmp_path / "good.py")) == []


def test_every_rule_has_a_planted_offence() -> None:
    assert {name for name, _ in BAD} == RULES.keys()
