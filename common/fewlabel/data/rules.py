# SPDX-License-Identifier: Apache-2.0
"""The rules of the pre-flight check: what is wrong with an image or a mask, one sentence a case, with the remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fewlabel.data.datalist import PRESENT_KEY, is_presence
from fewlabel.data.facts import Facts
from fewlabel.data.formats import files_of
from fewlabel.data.labels import Item

_COLORS = {"P": "palette", "PA": "palette", "CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "LAB", "HSV": "HSV"}
_SAME_GRID_MM = 1e-2

Known = Mapping[tuple[str, bool], Facts]


def image_problems(item: Item, image_key: str, facts: Known, channels: Collection[int]) -> list[str]:
    """Return what is wrong with the image of an item.

    Args:
        item: as in a data list.
        image_key: key of the image.
        facts: of all files.
        channels: channel counts that an image may have.
    """
    files = files_of(item[image_key])
    problems = [problem for file in files for problem in _file_problems(file, facts[file, False], "image")]
    if problems:
        return problems
    seen = [facts[file, False] for file in files]
    for file, fact in zip(files, seen, strict=True):
        if fact.mode in _COLORS:
            problems.append(f"{file}: {_COLORS[fact.mode]} picture, which would be misread; save it as RGB or gray")
        if fact.size != seen[0].size:
            problems.append(
                f"{file}: {size_words(fact)}, but {files[0]} is {size_words(seen[0])}; channels must have one size"
            )
    count = sum(1 if fact.mode == "LA" else fact.channels for fact in seen)  # gray with transparency is gray
    if not problems and count not in channels:
        expected = " or ".join(str(n) for n in sorted(channels))
        problems.append(f"{files[0]}: channel count {count} where this bundle reads {expected}; convert the image")
    return problems


def mask_problems(
    item: Item, image_key: str, label_key: str, facts: Known, allowed: frozenset[float] | None
) -> list[str]:
    """Return what is wrong with the mask of an item, by itself and beside its image.

    Args:
        item: as in a data list.
        image_key: key of the image.
        label_key: key of the label.
        facts: of all files.
        allowed: the values that a mask may hold; None accepts whole numbers from 0 on.
    """
    image = files_of(item[image_key])[0]
    ours = facts[image, False]
    problems = []
    for file in files_of(item[label_key]):
        fact = facts[file, True]
        bad = _file_problems(file, fact, "mask") or _value_problems(file, fact, allowed)
        bad = bad or _presence_problems(file, fact, item.get(PRESENT_KEY))
        problems += bad
        if ours.error or fact.error:
            continue
        if fact.size != ours.size:
            problems.append(
                f"{file}: mask of {size_words(fact)}, but its image {image} is {size_words(ours)}; correct the datalist"
            )
        elif fact.affine and ours.affine and not _same_grid(fact, ours):
            problems.append(
                f"{file}: its grid (origin, spacing or orientation) is not that of its image {image}; resample the mask"
            )
    return problems


def _file_problems(file: str, fact: Facts, what: str) -> list[str]:
    if fact.error == "does not exist":
        return [f"{file}: {what} does not exist; correct the datalist or dataset_dir"]
    if fact.error:
        return [f"{file}: {what} {fact.error}; export it again or take it out of the datalist"]
    if not fact.size or 0 in fact.size or not fact.channels:
        return [f"{file}: {what} of no size ({size_words(fact)}); export it again or take it out of the datalist"]
    if not fact.finite:
        return [f"{file}: {what} with NaN or infinite values; replace them or take it out of the datalist"]
    if fact.affine and not abs(np.linalg.det(np.reshape(fact.affine, (4, 4))[:3, :3])) > 1e-12:  # not a number, too
        return [f"{file}: {what} whose spacing is zero along an axis or no number; repair the header"]
    return []


def _value_problems(file: str, fact: Facts, allowed: frozenset[float] | None) -> list[str]:
    if not fact.same_channels:
        return [f"{file}: colored mask (its channels differ); save one channel of whole numbers and set label_map"]
    if allowed is None:
        odd = [value for value in fact.values if value < 0 or value != round(value)]
        return [f"{file}: mask values {_some(odd)} are no labels; use whole numbers from 0 on"] if odd else []
    unknown = [value for value in fact.values if value not in allowed]
    if not unknown:
        return []
    return [f"{file}: mask values {_some(unknown)} are not in label_map; add them there, or correct the mask"]


def _presence_problems(file: str, fact: Facts, present: Any) -> list[str]:
    if present is None:
        return []
    if not is_presence(present):
        return [f"{file}: its {PRESENT_KEY} {present!r} is no list of labels; give the values that it holds, as [1, 3]"]
    extra = [value for value in fact.values if value and value not in present]
    if not extra:
        return []
    return [f"{file}: mask values {_some(extra)} are not in its {PRESENT_KEY} {present}; add them there"]


def _same_grid(a: Facts, b: Facts) -> bool:
    """Whether no corner of the grid is further off than a hundredth of a millimeter or of a voxel."""
    ours, theirs = np.reshape(a.affine, (4, 4)), np.reshape(b.affine, (4, 4))
    extent = np.ones((8, 4))
    size = (*a.size, 1, 1)[:3]
    extent[:, :3] = [[size[d] * (corner >> d & 1) for d in range(3)] for corner in range(8)]
    spacing = float(np.linalg.norm(theirs[:3, :3], axis=0).min())
    return bool(np.abs(extent @ (ours - theirs).T).max() <= max(_SAME_GRID_MM, 0.01 * spacing))


def size_words(fact: Facts) -> str:
    """Return a size as ``640 x 480``.

    Args:
        fact: of the file.
    """
    return " x ".join(str(n) for n in fact.size)


def _some(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:5]) + (" ..." if len(values) > 5 else "")
