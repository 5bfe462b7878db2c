# SPDX-License-Identifier: Apache-2.0
"""Read Decathlon-style data lists: training and validation, optional unlabeled, test and partly labeled items."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewlabel.data.files import relative
from fewlabel.data.formats import files_of, suffix
from fewlabel.data.labels import Item, find_labels, has_label
from fewlabel.errors import ConfigError, DataError

DEFAULT = "datalist.json"
LISTS = ("training", "validation", "unlabeled", "test", "partial_label")
PRESENT_KEY = "labels_present"
_REMEDY = "write one with `python tools/make_datalist.py --images FOLDER --labels FOLDER`"


@dataclass(frozen=True)
class Datalist:
    """A data list with absolute paths.

    Args:
        root: the folder that relative paths are relative to.
        source: the name of the list, for messages and records; no machine path.
        training: items that may carry a label.
        validation: items with a label.
        unlabeled: items without one.
        test: items for evaluation, which alone reads them.
        partial_label: items whose label file lacks classes; ``labels_present`` names the values that it has, every
            other class being background there, whether or not the image shows it.
    """

    root: Path
    source: str
    training: list[Item] = field(default_factory=list)
    validation: list[Item] = field(default_factory=list)
    unlabeled: list[Item] = field(default_factory=list)
    test: list[Item] = field(default_factory=list)
    partial_label: list[Item] = field(default_factory=list)


def read_datalist(
    dataset_dir: str | Path = "",
    datalist: str | Path = DEFAULT,
    phantom: str = "endoscopy",
    phantom_seed: int = 0,
    image_key: str = "image",
    label_key: str = "label",
) -> Datalist:
    """Read and check a data list; without a data set, that of the built-in phantoms.

    Relative paths are resolved against ``dataset_dir``, or against the folder of the list where a file lies only there.

    Args:
        dataset_dir: folder of the data; empty takes the phantoms, or the list's folder when the list is absolute.
        datalist: the JSON file, absolute or relative to ``dataset_dir``.
        phantom: which phantoms.
        phantom_seed: which draw of them.
        image_key: key of the image in each item; its value is a path or a list of paths (channels).
        label_key: key of the label.

    Returns:
        The lists with absolute paths.

    Raises:
        ConfigError: when the folder or the list is missing, or the list is not a data list.
        DataError: when items lack an image, stand in two lists, carry a label in ``unlabeled``, or do not say in
            ``partial_label`` which labels they have.
    """
    if not str(dataset_dir) and not Path(datalist).is_absolute():
        if str(datalist) != DEFAULT:
            raise ConfigError(f"datalist {datalist} is given, but dataset_dir is empty: add --dataset_dir FOLDER")
        from fewlabel.data import phantoms

        dataset_dir = phantoms.folder(phantom, phantom_seed)
        source = f"phantoms/{phantom}/{phantom_seed}"
    else:
        source = ""
    root, path = _locate(dataset_dir, datalist)
    content = _parse(path)
    lists = {name: _items(content, name, image_key, path) for name in LISTS}
    resolve = _Resolver(root, path.parent, (image_key, label_key))
    lists = {name: [resolve(item) for item in items] for name, items in lists.items()}
    _check(lists, root, path, image_key, label_key)
    return Datalist(root, source or relative(path, root), **lists)


def _locate(dataset_dir: str | Path, datalist: str | Path) -> tuple[Path, Path]:
    """Return the absolute root folder and the path of the list, or say what is missing."""
    root = Path(dataset_dir or Path(datalist).expanduser().parent).expanduser().absolute()
    path = root / Path(datalist).expanduser()
    if not root.is_dir():
        raise ConfigError(f"dataset_dir {root} is not a folder: correct --dataset_dir (empty = built-in phantoms)")
    if not path.is_file():
        beside = sorted(p.name for p in root.glob("*.json"))
        others = f" (this folder has {', '.join(beside[:5])}: --datalist {beside[0]})" if beside else ""
        raise ConfigError(f"datalist {path} does not exist{others}: correct --datalist, or {_REMEDY}")
    return root, path


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"datalist {path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"datalist {path} cannot be read: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise ConfigError(f'datalist {path} has no list "training": {_REMEDY}')
    if not content["training"]:
        raise ConfigError(f'datalist {path}: the list "training" is empty; {_REMEDY}')
    return content


def _items(content: dict[str, Any], name: str, image_key: str, path: Path) -> list[Item]:
    items = content.get(name) or []
    if not isinstance(items, list):
        raise ConfigError(f'datalist {path}: "{name}" must be a list of items, not {type(items).__name__}')
    items = [{image_key: item} if isinstance(item, (str, list)) else item for item in items]
    bad = [str(i) for i, item in enumerate(items) if not isinstance(item, dict) or not files_of(item.get(image_key))]
    if bad:
        where = f"item{'s' * (len(bad) > 1)} {', '.join(bad[:10])}{' ...' * (len(bad) > 10)} of {name!r}"
        raise ConfigError(f'datalist {path}: {where} (counted from 0) name no "{image_key}" file; add it')
    return items


class _Resolver:
    """Make the paths of an item absolute; other strings only where they name an existing file of a known format."""

    def __init__(self, root: Path, beside: Path, keys: tuple[str, ...]) -> None:
        self.root = root
        self.beside = beside if beside != root else None
        self.keys = keys

    def __call__(self, item: Item) -> Item:
        return {key: self._value(key, value) for key, value in item.items()}

    def _value(self, key: str, value: Any) -> Any:
        files = files_of(value)
        if not files or not (key in self.keys or all(suffix(f) and Path(self._path(f)).is_file() for f in files)):
            return value
        return self._path(value) if isinstance(value, str) else [self._path(f) for f in files]

    def _path(self, value: str) -> str:
        path = self.root / value if value else self.root
        if self.beside is not None and not path.exists() and (self.beside / value).exists():
            path = self.beside / value
        return os.path.normpath(path)


def _check(lists: dict[str, list[Item]], root: Path, path: Path, image_key: str, label_key: str) -> None:
    with_labels = (*lists["training"], *lists["validation"], *lists["partial_label"])
    labels = [f for i in with_labels for f in files_of(i.get(label_key))]
    problems = [f"datalist {path}: {p}" for p in find_labels(lists["unlabeled"], image_key, label_key, labels)]
    seen: dict[tuple[str, ...], str] = {}
    for name, item in _walk(lists):
        files = files_of(item[image_key])
        if files in seen:
            both = f"twice in {name!r}" if seen[files] == name else f"in {seen[files]!r} and in {name!r}"
            problems.append(f"datalist {path}: {relative(files[0], root)} is {both}; keep one")
        seen.setdefault(files, name)
    partial = lists["partial_label"]
    bad = unlabeled_of("validation", lists["validation"], image_key, label_key)
    bad += unlabeled_of("partial_label", partial, image_key, label_key) + _presence_of(partial, image_key)
    problems += [f"datalist {path}: {p}" for p in bad]
    if problems:
        raise DataError(problems)


def unlabeled_of(name: str, items: Sequence[Item], image_key: str, label_key: str) -> list[str]:
    """Return one sentence for every item that has no label of a list whose items need one."""
    return [
        f"{files_of(item[image_key])[0]} in {name!r} has no {label_key!r}; add it, or take the item out of {name!r}"
        for item in items
        if not has_label(item, label_key)
    ]


def _presence_of(items: Sequence[Item], image_key: str) -> list[str]:
    """Return one sentence for every partly labeled item that does not say which labels it has."""
    return [
        f"{files_of(item[image_key])[0]} in 'partial_label' has {PRESENT_KEY} {item.get(PRESENT_KEY)!r}; give the "
        "values that its label file holds, as [1, 3]"
        for item in items
        if not is_presence(item.get(PRESENT_KEY))
    ]


def is_presence(value: Any) -> bool:
    """Say whether a value is a list of one or more labels, which are whole numbers from 1 on."""
    return isinstance(value, (list, tuple)) and bool(value) and all(type(label) is int and label > 0 for label in value)


def _walk(lists: dict[str, list[Item]]) -> Iterator[tuple[str, Item]]:
    for name, items in lists.items():
        for item in items:
            yield name, item
