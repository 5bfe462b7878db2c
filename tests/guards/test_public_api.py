# SPDX-License-Identifier: Apache-2.0
"""``api.json`` lists every public name with its signature, so that a change of the interface shows in the diff.

Regenerate after an intended change, from the root of the repository: ``python -m tests.guards.test_public_api --write``
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import sys
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import pytest
from tests.guards._tree import refuse

import fewlabel

RECORD = Path(__file__).with_name("api.json")
REGENERATE = "python -m tests.guards.test_public_api --write"


def inventory() -> dict[str, str]:
    """Return "module.name" → signature of all that ``fewlabel`` offers."""
    found: dict[str, str] = {}
    for name in fewlabel._SUBPACKAGES:
        found |= surface(importlib.import_module(f"fewlabel.{name}"))
    return dict(sorted(found.items()))


def surface(module: ModuleType) -> dict[str, str]:
    """Return "module.name" → signature of the names in ``__all__`` (else: defined there), sub-modules included."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    found: dict[str, str] = {}
    for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
        value = getattr(module, name)
        if inspect.ismodule(value):
            found |= surface(value)
        else:
            found |= {f"{module.__name__}.{name}{member}": text for member, text in described(value).items()}
    return found


def described(value: Any) -> dict[str, str]:
    """Return what a name is under "", and for a class its public members under ".member"."""
    if not inspect.isclass(value):
        return {"": signature(value) if inspect.isroutine(value) else type(value).__name__}
    found = {"": f"class{constructor(value)}"}
    for name, member in vars(value).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, (property, functools.cached_property)):
            found[f".{name}"] = "property"
        elif isinstance(member, staticmethod | classmethod):
            found[f".{name}"] = f"{type(member).__name__}{signature(member.__func__)}"
        elif inspect.isroutine(member):
            found[f".{name}"] = signature(member)
        elif type(member) in (bool, int, float, str) and name not in getattr(value, "__dataclass_fields__", ()):
            found[f".{name}"] = f"= {member!r}"
    return found


def constructor(cls: type) -> str:
    """Return the signature of a class, but only the origin of a constructor that another package may change."""
    owner = next(base for base in cls.__mro__ if {"__init__", "__new__"} & vars(base).keys())
    if owner is object:
        return "()"
    if owner.__module__.split(".")[0] != cls.__module__.split(".")[0]:
        return f" with the constructor of {owner.__module__.split('.')[0]}.{owner.__qualname__}"
    return signature(cls).split(" -> ")[0]


def signature(function: Any) -> str:
    """Return a signature that reads as in the source and is equal on every machine and Python version."""
    parts, kind, star = [], None, False
    for parameter in inspect.signature(function).parameters.values():
        if kind == parameter.POSITIONAL_ONLY != parameter.kind:
            parts.append("/")
        star |= parameter.kind == parameter.VAR_POSITIONAL
        if parameter.kind == parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        kind = parameter.kind
        text = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        parts.append(text)
    returns = inspect.signature(function).return_annotation
    return f"({', '.join(parts)})" + (f" -> {_annotation(returns)}" if returns is not inspect.Signature.empty else "")


def _annotation(annotation: Any) -> str:
    text = getattr(annotation, "__forward_arg__", annotation)  # NamedTuple wraps its strings
    return text if isinstance(text, str) else inspect.formatannotation(text)


def _default(value: Any) -> str:
    if value is None or type(value) in (bool, int, float, str, tuple, list, dict):
        return repr(value)
    if isinstance(value, PurePath) or repr(value) == "<factory>":
        return "<path>" if isinstance(value, PurePath) else "<factory>"
    return getattr(value, "__qualname__", f"<{type(value).__name__}>")


def differences(recorded: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return one sentence for each name that went, came or changed."""
    lines = []
    for name in sorted({*recorded, *found}):
        if name not in found:
            near = difflib.get_close_matches(name, found.keys() - recorded.keys(), n=1)
            lines.append(f"gone: {name}" + (f" (renamed to {near[0]}?)" if near else ""))
        elif name not in recorded:
            lines.append(f"new, not recorded: {name}{found[name]}")
        elif recorded[name] != found[name]:
            lines.append(f"changed: {name}\n    was {recorded[name]}\n    now {found[name]}")
    return lines


def test_public_api_is_the_recorded_one() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    refuse(differences(recorded, inventory()), f"if this is meant, run '{REGENERATE}' and commit api.json")


def test_all_names_exist_once() -> None:
    found = []
    for sub in fewlabel._SUBPACKAGES:
        module = importlib.import_module(f"fewlabel.{sub}")
        names = getattr(module, "__all__", [])
        found += [
            f"fewlabel.{sub}.__all__ names '{name}', which is not there" for name in names if not _has(module, name)
        ]
        found += [f"fewlabel.{sub}.__all__ names '{name}' twice" for name in set(names) if names.count(name) > 1]
    refuse(found, "__all__ says what is there")


def _has(module: ModuleType, name: str) -> bool:
    try:
        return hasattr(module, name)
    except ImportError:
        return False


class _Example:
    streams = "halves"

    def __init__(self, size: int, *, name: str | None = None) -> None:
        self.size, self.name = size, name

    def __call__(self, *x: int, **more: int) -> int:
        return sum(x)

    @property
    def area(self) -> int:
        return self.size**2

    @classmethod
    def make(cls, limit: float = 0.5, place: Path = Path()) -> _Example:
        return cls(int(limit))


def test_description_of_an_example() -> None:
    assert described(_Example) == {
        "": "class(size: int, *, name: str | None = None)",
        ".streams": "= 'halves'",
        ".__call__": "(self, *x: int, **more: int) -> int",
        ".area": "property",
        ".make": "classmethod(cls, limit: float = 0.5, place: Path = <path>) -> _Example",
    }


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "gone: a.f"),
        ({"a.f": "(x: int)", "a.g": "()"}, "new, not recorded: a.g()"),
        ({"a.f": "(y: int)"}, "changed: a.f\n    was (x: int)\n    now (y: int)"),
        ({"a.ff": "(x: int)"}, "gone: a.f (renamed to a.ff?)"),
    ],
)
def test_planted_difference_is_found(found: dict[str, str], message: str) -> None:
    assert message in differences({"a.f": "(x: int)"}, found)
    assert differences(found, found) == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(f"usage: {REGENERATE}")
    RECORD.write_text(json.dumps(inventory(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
