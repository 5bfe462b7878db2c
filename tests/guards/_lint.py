# SPDX-License-Identifier: Apache-2.0
"""A lint for the configs of a bundle: every function returns one sentence a problem, each with the id of the item.

MONAI finds these mistakes one at a time, when a run reaches them, and some never. Here nothing is built or evaluated:
MONAI's own parser resolves macros and components; ``ast`` and ``inspect`` check names, expressions and arguments.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from types import ModuleType
from typing import Any

from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.bundle.config_parser import ConfigItem

HEAD = (
    "bundle_root dataset_dir datalist label_budget budget_unit split_seed group_key hold_out label_map class_names "
    "output_dir ckpt_dir init_checkpoint device amp seed num_workers cache_rate spatial_size batch_size max_epochs "
    "epoch_length resume method_enabled"
).split()
OPTIONAL = {"hold_out"}
MONAI_KEYS = {"initialize", "finalize", "run", "imports", "displayable_configs", "_meta_"}
_MISSING = object()


def nearest(name: str, known: Collection[str]) -> str:
    """Return a hint to the known name that looks most like ``name``; empty when none does."""
    close = get_close_matches(name, sorted(known), n=1)
    return f": did you mean '{close[0]}'?" if close else ""


def load(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the content of a JSON file and what is wrong with its text: syntax, keys that stand twice, '#'."""
    problems: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        problems.extend(f"key '{key}' stands twice in one object" for key in sorted(set(keys)) if keys.count(key) > 1)
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        return {}, [f"line {error.lineno}: {error.msg}"]
    problems += [f"{where}: '#' in '{text}': MONAI reads '::'" for where, text in strings(content) if "#" in text]
    return content, problems


def strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every string in a config, keys included."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield where or "top level", str(key)
            yield from strings(item, f"{where}::{key}".removeprefix("::"))


def head_problems(config: Mapping[str, Any], complete: bool) -> list[str]:
    """Check that the keys of the contract come first and in order; ``complete``: and that none is missing."""
    keys = list(config)
    problems = [] if keys[:1] == ["imports"] else ["the first key is not 'imports'"]
    present = [key for key in keys if key in HEAD]
    problems += [
        f"key '{key}' of the contract is missing" for key in HEAD if complete and key not in {*present, *OPTIONAL}
    ]
    ordered = [key for key in HEAD if key in present]
    wrong = next(((a, b) for a, b in zip(present, ordered, strict=True) if a != b), None)
    if wrong:
        problems.append(f"key '{wrong[0]}' stands where the contract has '{wrong[1]}'")
    start = keys[: 1 + len(present)]
    problems += [
        f"key '{key}' stands among the contract's keys: move it below them" for key in start[1:] if key not in HEAD
    ]
    return problems


def overlay_problems(
    overlay: Mapping[str, Any], bases: Mapping[str, Mapping[str, Any]], nested: bool = True
) -> list[str]:
    """Check the keys of an overlay: known at top level, or ``a::b`` whose parent exists, or ``+key`` of a list or dict.

    ``bases`` holds train.json first and inference.json; ``nested=False`` allows top-level keys only (light.json).
    """
    train = next(iter(bases.values()))
    used = set(re.findall(r"[@%](\w+)", " ".join(text for _, text in strings(overlay))))
    known = {*HEAD, *MONAI_KEYS, *used, *(key for base in bases.values() for key in base)}
    problems = []
    for key, value in overlay.items():
        plain = key.removeprefix("+")
        if "::" in plain and not nested:
            problems.append(f"key '{key}': this profile lies over train, evaluate and inference: top-level keys only")
        elif key != plain:
            old = _at(train, plain)
            if type(old) is not type(value) or not isinstance(old, dict | list):
                kind = f"missing{nearest(plain, train)}" if old is _MISSING else f"a {type(old).__name__}"
                problems.append(f"key '{key}' extends a list or dict, but '{plain}' of train.json is {kind}")
        elif "::" in plain:
            parent = plain.rpartition("::")[0]
            if not isinstance(_at(train, parent), dict | list):
                problems.append(f"key '{key}': train.json has no '{parent}'{nearest(parent, list(_ids(train)))}")
        elif plain not in known and not _is_run_id(value):
            files = " nor ".join(bases)
            problems.append(f"key '{key}' is in neither {files}, and nothing reads it{nearest(plain, known)}")
    return problems


def _is_run_id(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v[:1] in ("$", "@") for v in value)


def _at(config: Any, where: str) -> Any:
    for part in where.split("::"):
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping) and part in config:
            config = config[part]
        else:
            return _MISSING
    return config


def _ids(config: Any, where: str = "") -> Iterator[str]:
    for key, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        here = f"{where}::{key}".removeprefix("::")
        yield here
        if isinstance(value, Mapping | list):
            yield from _ids(value, here)


def workflow_problems(files: Sequence[Path], meta: Path | None = None) -> list[str]:
    """Check references, expressions and components of config files merged in MONAI's way, later ones winning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
            if meta is not None and meta.is_file():
                parser.read_meta(str(meta))
            parser.parse()
        except (KeyError, ValueError, TypeError) as error:
            return [f"MONAI cannot merge {' + '.join(file.name for file in files)}: {error}"]
        items = {where: item for where, item in parser.ref_resolver.items.items() if not where.startswith("_meta_")}
        problems = [text for where, item in items.items() for text in _import_problems(where, item, parser)]
        for where, item in items.items():
            problems += _reference_problems(where, item, parser.ref_resolver.items)
            problems += _expression_problems(where, item, parser.globals)
            problems += _component_problems(where, item)
    return problems


def _import_problems(where: str, item: ConfigItem, parser: ConfigParser) -> list[str]:
    code = item.get_config()
    try:
        if not ConfigExpression.is_import_statement(code):
            return []
    except SyntaxError:
        return []  # an expression; reported as such
    statement = ast.parse(code[1:]).body[0]
    item.evaluate()  # binds the name in parser.globals, or something that raises on use
    name = str(statement.module) if isinstance(statement, ast.ImportFrom) else statement.names[0].name
    if "." in name and isinstance(statement, ast.Import) and not statement.names[0].asname:
        return [f"{where}: '{code}' does not bind '{name.split('.')[0]}' in MONAI: import the top-level package"]
    return [] if isinstance(locate(name), ModuleType) else [f"{where}: '{code}': there is no module '{name}'"]


def _reference_problems(where: str, item: ConfigItem, known: Mapping[str, Any]) -> list[str]:
    text = item.get_config()
    if not isinstance(text, str):
        return []
    if re.match(r"@\w", text) and not ReferenceResolver.match_refs_pattern(text):
        return [f"{where}: '{text}' is text to MONAI: write '${text}' for an expression"]
    missing = [name for name in ReferenceResolver.match_refs_pattern(text) if name not in known]
    return [f"{where}: '@{name}' refers to nothing{nearest(name, known)}" for name in missing]


def _expression_problems(where: str, item: ConfigItem, scope: Mapping[str, Any]) -> list[str]:
    text = item.get_config()
    if not isinstance(item, ConfigExpression) or re.match(r"\$\s*(import|from)\s", text):
        return []
    refs = ReferenceResolver.match_refs_pattern(text)
    code = ReferenceResolver.update_refs_pattern(text, dict.fromkeys(refs))[1:]
    try:
        tree = ast.parse(code.strip(), mode="eval")
    except SyntaxError as error:
        return [f"{where}: '{text}' is no Python expression: {error.msg}"]
    return [f"{where}: '{text}': {problem}" for problem in _name_problems(tree, scope)]


def _name_problems(tree: ast.Expression, scope: Mapping[str, Any]) -> Iterator[str]:
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in {*bound, *scope, *dir(builtins), ReferenceResolver._vars}:
            yield f"unknown name '{node.id}'; the config imports {', '.join(sorted(scope))}"
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            target, problem = _resolve(node, scope, bound)
            if problem:
                yield problem
        elif isinstance(node, ast.Call):
            target, _ = _resolve(node.func, scope, bound)
            starred = any(isinstance(arg, ast.Starred) for arg in node.args) or any(
                k.arg is None for k in node.keywords
            )
            if callable(target) and not starred:
                problem = misfit(target, [k.arg for k in node.keywords if k.arg], len(node.args))
                yield from [f"{ast.unparse(node.func)} {problem}"] * bool(problem)


def _resolve(node: ast.AST, scope: Mapping[str, Any], bound: Collection[str]) -> tuple[Any, str]:
    """Follow ``package.module.name`` as far as modules and classes go; return (object or None, problem)."""
    chain: list[str] = []
    while isinstance(node, ast.Attribute):
        chain, node = [node.attr, *chain], node.value
    if not isinstance(node, ast.Name) or node.id in bound or node.id not in scope:
        return None, ""
    target, path = scope[node.id], node.id
    for name in chain:
        if not isinstance(target, ModuleType) and not inspect.isclass(target):
            return None, ""
        inside = _member(target, name)
        if inside is _MISSING:
            return None, f"{path} has no '{name}'{nearest(name, dir(target))}"
        target, path = inside, f"{path}.{name}"
    return target, ""


def _member(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except (AttributeError, ImportError):
        found = locate(f"{owner.__name__}.{name}") if hasattr(owner, "__path__") else None
        return _MISSING if found is None else found


def _component_problems(where: str, item: ConfigItem) -> list[str]:
    if not isinstance(item, ConfigComponent) or not isinstance(target := item.get_config()["_target_"], str):
        return []
    if target[:1] in ("$", "@"):
        return []  # checked as an expression or reference
    homes = item.locator.get_component_module_name(target)
    if isinstance(homes, list):
        return [f"{where}: _target_ '{target}' is ambiguous: write one of {', '.join(f'{h}.{target}' for h in homes)}"]
    try:
        found = locate(f"{homes}.{target}" if homes else target)
    except ErrorDuringImport as error:
        return [f"{where}: _target_ '{target}' cannot be imported: {error}"]
    if found is None:
        owner = locate(target.rpartition(".")[0]) if "." in target else None
        known = getattr(owner, "__all__", dir(owner)) if owner else item.locator._components_table or ()
        return [f"{where}: _target_ '{target}' does not exist{nearest(target.rpartition('.')[2], known)}"]
    if not callable(found):
        return [f"{where}: _target_ '{target}' is a {type(found).__name__}, not a class or function"]
    mode = item.get_config().get("_mode_", "default")
    if mode not in ("default", "callable"):
        return [f"{where}: _mode_ '{mode}': 'default' or 'callable'"]
    problem = misfit(found, list(item.resolve_args()), partial=mode == "callable")
    return [f"{where}: {target} {problem}"] if problem else []


def misfit(function: Any, names: Sequence[str], positional: int = 0, partial: bool = False) -> str:
    """Return why a callable does not accept arguments of these names, empty when it does; values do not matter."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""  # built-in without a signature
    parameters = signature.parameters
    for name in names:
        if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            known = _arguments(function)  # what the catch-all swallows in silence may still be a misspelling
            if name not in known and (name.startswith("_") or get_close_matches(name, known, n=1, cutoff=0.8)):
                return f"takes no '{name}'{nearest(name, known)}"
        elif name not in parameters:
            return f"has no argument '{name}'{nearest(name, parameters)} (it takes {', '.join(parameters)})"
    try:
        (signature.bind_partial if partial else signature.bind)(*[None] * positional, **dict.fromkeys(names))
    except TypeError as error:
        return f"cannot be called so: {error}"
    return ""


def _arguments(function: Any) -> set[str]:
    """Return the argument names of a function, or of a class and all that it may hand its arguments on to."""
    owners = [base.__init__ for base in function.__mro__ if base is not object] if inspect.isclass(function) else []
    return {name for owner in [function, *owners] for name in inspect.signature(owner).parameters}
