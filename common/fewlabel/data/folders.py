# SPDX-License-Identifier: Apache-2.0
"""Make a data list from folders: images and masks are paired by name, and whole groups are set aside."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewlabel.data.files import listed, natural, relative
from fewlabel.data.formats import kind, stem, suffix
from fewlabel.data.labels import Item
from fewlabel.errors import ConfigError, DataError

_LOG = logging.getLogger(__name__)


def datalist_from_folders(
    images: str | Path,
    labels: str | Path | None = None,
    unlabeled: str | Path | None = None,
    validation: float | str | Sequence[Any] = 0.2,
    test: float | str | Sequence[Any] = 0.0,
    group_pattern: str | None = None,
    group_key: str = "video",
    label_suffix: str = "",
    image_suffix: str = "",
    seed: int = 0,
    root: str | Path | None = None,
) -> dict[str, Any]:
    r"""Pair images with masks by name and split them by group.

    The name is the path below the folder without its suffix: ``images/OP1/07.jpg`` goes with ``labels/OP1/07.png``.
    Images without a mask become unlabeled. Only labeled groups are set aside; unlabeled images of such a group are left
    out, because a method must not see the images that it is scored on.

    Args:
        images: folder of images, searched with its subfolders; a subfolder of DICOM files is one image.
        labels: folder of masks; may be ``images`` itself when ``label_suffix`` tells them apart.
        unlabeled: a further folder of images without masks; these need no group.
        validation: share of the labeled items in [0, 1), as whole groups, or names of groups (``"OP3"``, a list).
        test: the same for the test list.
        group_pattern: regular expression searched in each name; its first group, or else the whole match, is the group
            (patient, video): ``"OP\d+"``, ``"^(.+?)_frame"``. None: every item is its own group.
        group_key: key that the group gets in each item.
        label_suffix: what mask names have in addition, as ``_mask`` in ``07_mask.png``.
        image_suffix: what image names have in addition, as ``_0000``.
        seed: of the draw of groups.
        root: the folder that paths are written relative to; None takes the deepest that holds all.

    Returns:
        ``{"root": ..., "training": [...], "validation": [...], ...}``; ``root`` is a path and no part of the list.

    Raises:
        ConfigError: when a folder is missing or empty, or there are too few groups.
        DataError: listing masks without an image, names that stand for two files, and names without a group.
    """
    folders = [Path(f).expanduser().absolute() for f in (images, labels, unlabeled) if f is not None]
    base = Path(root).expanduser().absolute() if root is not None else Path(os.path.commonpath(folders))
    found = _files(images, image_suffix, "images")
    masks = _files(labels, label_suffix, "labels") if labels is not None else {}
    if label_suffix and labels is not None and folders[0] == folders[1]:
        found = _only(found, lambda path: not stem(path).endswith(label_suffix))
        masks = _only(masks, lambda path: stem(path).endswith(label_suffix))
    more = _files(unlabeled, image_suffix, "unlabeled") if unlabeled is not None else {}
    pattern = _pattern(group_pattern)
    _stop_at_problems(found, masks, more, pattern, base)
    items = [_item(name, found, masks, base, pattern, group_key) for name in sorted(found, key=natural)]
    extra = [_item(name, more, {}, base, pattern, group_key) for name in sorted(more, key=natural)]
    return {"root": base, **_split(items, extra, validation, test, group_key if pattern else None, seed)}


def _files(folder: str | Path, name_suffix: str, key: str) -> dict[str, list[Path]]:
    """Readable files of a folder by name; several files under one name are a problem for later."""
    top = Path(folder).expanduser().absolute()
    if not top.is_dir():
        raise ConfigError(f"--{key} {top} is not a folder")
    files: dict[str, list[Path]] = {}
    for path in readable_files(top):
        name = relative(path.parent / stem(path), top)
        name = name.removesuffix(name_suffix) if name_suffix else name
        files.setdefault(name, []).append(path)
    if not files:
        raise ConfigError(f"--{key} {top} holds no image of a known format (PNG, JPEG, TIFF, NIfTI, DICOM)")
    return files


def _only(files: Mapping[str, list[Path]], wanted: Callable[[Path], bool]) -> dict[str, list[Path]]:
    kept = {name: [path for path in paths if wanted(path)] for name, paths in files.items()}
    return {name: paths for name, paths in kept.items() if paths}


def readable_files(top: Path) -> list[Path]:
    """Return all images below a folder in natural order; a folder of DICOM files counts as one image.

    Args:
        top: the folder; hidden files and folders are passed over.
    """
    found: list[Path] = []
    for folder, subfolders, names in os.walk(top):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(folder)
        visible = [here / name for name in names if not name.startswith(".")]
        series = [path for path in visible if kind(path) == "dicom"]
        found += [path for path in visible if suffix(path) and path not in series]
        found += series if len(series) == 1 else [here] if series else []
    return sorted(found, key=natural)


def _pattern(group_pattern: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group_pattern) if group_pattern else None
    except re.error as error:
        raise ConfigError(f"group_pattern {group_pattern!r} is not a regular expression: {error}") from None


def _stop_at_problems(
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    more: Mapping[str, list[Path]],
    pattern: re.Pattern[str] | None,
    base: Path,
) -> None:
    several = [paths for files in (images, masks, more) for paths in files.values() if len(paths) > 1]
    problems = [
        f"{', '.join(relative(p, base) for p in group)}: one name, several files; keep one" for group in several
    ]
    orphans = [relative(masks[name][0], base) for name in sorted(masks.keys() - images.keys(), key=natural)]
    problems += [f"{orphan}: mask without an image; add the image or remove the mask" for orphan in orphans]
    if masks and not masks.keys() & images.keys():
        example = relative(next(iter(images.values()))[0], base)
        problems = [f"no mask has the name of an image ({example} ...): set label_suffix or image_suffix"]
    if pattern is not None:
        loose = [name for name in sorted(images, key=natural) if not pattern.search(name)]
        problems += [f"{name}: group_pattern {pattern.pattern!r} does not match this name" for name in loose]
    if problems:
        raise DataError(problems)


def _item(
    name: str,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    base: Path,
    pattern: re.Pattern[str] | None,
    group_key: str,
) -> Item:
    item: Item = {"image": relative(images[name][0], base)}
    if name in masks:
        item["label"] = relative(masks[name][0], base)
    if pattern is not None and (match := pattern.search(name)):
        item[group_key] = match.group(1) if pattern.groups else match.group(0)
    return item


def _split(
    items: Sequence[Item],
    extra: Sequence[Item],
    validation: float | str | Sequence[Any],
    test: float | str | Sequence[Any],
    group_key: str | None,
    seed: int,
) -> dict[str, list[Item]]:
    """Set groups of labeled items aside; what has no label and no part in them becomes unlabeled."""

    def group(item: Item) -> str:
        return str(item.get(group_key)) if group_key else str(item["image"])

    labeled = [item for item in items if "label" in item]
    sizes: dict[str, int] = {}
    for item in labeled:
        sizes[group(item)] = sizes.get(group(item), 0) + 1
    held = _choose(sizes, {"test": test, "validation": validation}, seed)
    aside = frozenset(name for names in held.values() for name in names)
    if labeled and len(aside) == len(sizes):
        raise ConfigError(f"{len(sizes)} labeled group(s) leave nothing to train on: lower validation and test")
    free = [item for item in (*items, *extra) if "label" not in item]
    unlabeled = [item for item in free if group(item) not in aside]
    if len(unlabeled) < len(free):
        _LOG.warning("%d unlabeled images of validation or test groups are left out", len(free) - len(unlabeled))
    lists = {name: [item for item in labeled if group(item) in held[name]] for name in ("validation", "test")}
    training = [item for item in labeled if group(item) not in aside]
    return {"training": training, "validation": lists["validation"], "unlabeled": unlabeled, "test": lists["test"]}


def _choose(
    sizes: Mapping[str, int], shares: Mapping[str, float | str | Sequence[Any]], seed: int
) -> dict[str, frozenset[str]]:
    """Choose groups by name, or by share in seeded order until the share of items is reached."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    held: dict[str, frozenset[str]] = {}
    for key, share in shares.items():
        if not isinstance(share, (int, float)):
            names = listed(share)
            if missing := [name for name in names if name not in sizes]:
                raise ConfigError(f"{key} {', '.join(missing)} is no labeled group; there are: {', '.join(sizes)}")
            held[key] = frozenset(names)
    for key, share in shares.items():
        if key in held:
            continue
        if not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise ConfigError(f"{key} {share!r} must be a share in [0, 1) or names of groups")
        taken: list[str] = []
        free = [name for name in order if not any(name in names for names in held.values())]
        while share > 0 and free and sum(sizes[name] for name in taken) < share * sum(sizes.values()):
            taken.append(free.pop(0))
        held[key] = frozenset(taken)
    if both := held["test"] & held["validation"]:
        raise ConfigError(f"{', '.join(sorted(both))} cannot be in validation and in test")
    return held
