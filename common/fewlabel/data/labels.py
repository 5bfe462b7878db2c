# SPDX-License-Identifier: Apache-2.0
"""Keep labels out of what is unlabeled: strip them from items, and find any that are left."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

Item = dict[str, Any]

_LABEL_NAME = re.compile(r"label|mask|truth|annot|contour|(^|_)(gt|seg|segm|segmentations?)(_|$)", re.IGNORECASE)
_FILE_NAME = re.compile(r"[/\\]|\.[a-z][a-z0-9]{0,7}$", re.IGNORECASE)  # of any format, also of none that is read


def without_labels(
    item: Mapping[str, Any], image_key: str = "image", label_key: str = "label", known: Collection[str] = ()
) -> Item:
    """Return a copy of an item that neither holds nor names a label.

    Removed are ``label_key``, every key whose name says label, mask, truth, segmentation, annotation or contour unless
    its value is a mere tag, and every value that names a file in ``known``. Tags stay: numbers, truth values and words
    such as ``class_label: 2`` or ``video: "OP1"``, because image tags are what some methods learn from.

    Args:
        item: as in a data list.
        image_key: key of the image, never removed.
        label_key: key of the label.
        known: paths of all label files that are known.

    Returns:
        A new dictionary.

    Example:
        >>> without_labels({"image": "a.png", "label": "b.png", "soft_mask": "c.npy", "class_label": 2})
        {'image': 'a.png', 'class_label': 2}
    """
    known = frozenset(known)
    return {k: v for k, v in item.items() if k == image_key or not _is_label(k, v, label_key, known)}


def find_labels(
    items: Iterable[Mapping[str, Any]], image_key: str = "image", label_key: str = "label", known: Collection[str] = ()
) -> list[str]:
    """Return one sentence for every label that unlabeled items still hold or point to; an empty list is the aim.

    Links are followed, so that a label file under another name is found too, also where it poses as the image.

    Args:
        items: of an unlabeled list.
        image_key: key of the image.
        label_key: key of the label.
        known: paths of all label files that are known.

    Returns:
        Sentences that name the image and the key.
    """
    real = {_real(path) for path in known}
    found = []
    for item in items:
        for key, value in item.items():
            points = bool(real) and any(_real(path) in real for path in _paths(value))
            if points or (key != image_key and _is_label(key, value, label_key, frozenset())):
                found.append(f"{item.get(image_key)}: an unlabeled item must not carry the label in {key!r}; remove it")
    return found


def has_label(item: Mapping[str, Any], label_key: str = "label") -> bool:
    """Say whether an item has a label; an empty string or null does not count."""
    return item.get(label_key) not in (None, "", [])


def label_files(item: Mapping[str, Any], image_key: str = "image", label_key: str = "label") -> tuple[str, ...]:
    """Return the files that :func:`without_labels` takes out of an item.

    Args:
        item: as in a data list.
        image_key: key of the image.
        label_key: key of the label.

    Example:
        >>> label_files({"image": "a.png", "label": "b.png", "soft_mask": "c.npy", "class_label": 2})
        ('b.png', 'c.npy')
    """
    kept = without_labels(item, image_key, label_key)
    return tuple(file for key, value in item.items() if key not in kept for file in _paths(value))


def _is_label(key: str, value: Any, label_key: str, known: frozenset[str]) -> bool:
    if key == label_key or any(path in known for path in _paths(value)):
        return True
    return bool(_LABEL_NAME.search(key)) and not _is_tag(value)


def _is_tag(value: Any) -> bool:
    """Whether a value is a number, a truth value, a word that names no file, or a short list of those."""
    if isinstance(value, (list, tuple)):
        return all(_is_tag(part) for part in value) and not any(isinstance(part, (list, tuple)) for part in value)
    return value is None or isinstance(value, (int, float)) or (isinstance(value, str) and not _FILE_NAME.search(value))


def _paths(value: Any) -> list[str]:
    """All strings and paths in a value, however deep."""
    if isinstance(value, (str, Path)):
        return [str(value)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [path for part in parts for path in _paths(part)]


def _real(path: str) -> str:
    try:
        return str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError):
        return path
