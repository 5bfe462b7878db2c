# SPDX-License-Identifier: Apache-2.0
"""Draw the labeled items of a label budget; what is left over becomes unlabeled."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewlabel.data.datalist import DEFAULT, PRESENT_KEY, Datalist, read_datalist
from fewlabel.data.files import listed, relative
from fewlabel.data.folds import hold_out_groups, shared_groups
from fewlabel.data.formats import files_of
from fewlabel.data.labels import Item, find_labels, has_label, label_files, without_labels
from fewlabel.data.notebook import is_empty_mask
from fewlabel.errors import ConfigError
from fewlabel.files import write_json

_LOG = logging.getLogger(__name__)
PHANTOM_BUDGET = 8  # every phantom has a label, but a method for few labels shall be seen with few
_UNUSED = 'which is in the list "partial_label" (use_partial_labels is false)'
_GROUP_UNITS = ("group", "video", "patient")


@dataclass(frozen=True, eq=False)
class Splits:
    """What training may see: items with absolute paths, and how they were chosen.

    Args:
        labeled: items with a label, in the order of the draw, so that a larger budget only appends; after them the
            partly labeled, where they were asked for.
        unlabeled: items without one.
        validation: items with a label; never a choice is made on them that a table reports.
        root: folder of the data set.
        source: name of the data list.
        budget: units asked for; None is all.
        budget_unit: what a unit is.
        seed: seed of the draw.
        hold_out: groups that were moved to the validation list.
        held_back: label files that training must not open, those of the list ``test`` among them, each with the name
            of its case and the reason. Names only; they are no part of the record and of the fingerprint.
    """

    labeled: tuple[Item, ...]
    unlabeled: tuple[Item, ...]
    validation: tuple[Item, ...]
    root: Path = field(default_factory=Path)
    source: str = ""
    budget: int | None = None
    budget_unit: str = "item"
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    held_back: Mapping[str, str] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the split for JSON; paths are relative to the data set, so that it means the same elsewhere."""
        lists = {name: getattr(self, name) for name in ("labeled", "unlabeled", "validation")}
        return {
            "source": self.source,
            "label_budget": self.budget,
            "budget_unit": self.budget_unit,
            "split_seed": self.seed,
            "hold_out": list(self.hold_out),
            **{name: [_portable(item, self.root) for item in items] for name, items in lists.items()},
        }

    def fingerprint(self) -> str:
        """Return the SHA-256 of :meth:`as_dict`: equal for equal items, wherever the data set lies."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True, default=str).encode()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the split and its fingerprint as JSON, atomically.

        Args:
            path: the file, by custom ``split.json`` in the output folder.

        Returns:
            The path written.
        """
        return write_json(path, {**self.as_dict(), "fingerprint": self.fingerprint()})


def splits(
    dataset_dir: str | Path = "",
    datalist: str | Path = DEFAULT,
    label_budget: int | None = None,
    budget_unit: str = "item",
    split_seed: int = 0,
    group_key: str = "video",
    hold_out: str | Sequence[Any] | None = None,
    phantom: str = "endoscopy",
    phantom_seed: int = 0,
    image_key: str = "image",
    label_key: str = "label",
    use_partial_labels: bool = False,
    needs_labels: bool = True,
) -> Splits:
    """Choose the labeled items of a budget by seed and turn the rest of ``training`` into unlabeled items.

    Units are ordered by the SHA-256 of (seed, name) and the first ``label_budget`` with a non-empty mask are taken.
    So budgets are nested (4 within 8 within 16), the draw depends neither on the order of the list nor on where the
    data lie, and items added later leave the order of the others alone. Items are drawn without regard to groups: a
    draw that spread itself over all videos would flatter small budgets. With a group as the unit, all items of a drawn
    group are labeled. Of the list ``test`` only the names of its label files are used, which training must not open.

    Args:
        dataset_dir: folder of the data; empty takes the built-in phantoms.
        datalist: JSON file, absolute or relative to ``dataset_dir``.
        label_budget: how many units keep their labels; None keeps all, those with empty masks included
            (of the built-in phantoms, 8); 0 keeps none, see ``needs_labels`` and
            ``use_partial_labels``.
        budget_unit: ``item``, or ``group`` (also called ``video`` or ``patient``): items with one ``group_key`` value.
        split_seed: seed of the draw.
        group_key: key of the group in each item; folds and group units need it.
        hold_out: groups that become the validation list, for leave-one-group-out folds: ``OP1``, ``OP1,OP2`` or a
            list. All other items of ``training`` and ``validation`` are trained on; unlabeled items of a held-out
            group are left out.
        phantom: which phantoms.
        phantom_seed: which draw of them.
        image_key: key of the image.
        label_key: key of the label.
        use_partial_labels: what becomes of the list ``partial_label``: unlabeled items, or labeled ones beyond the
            budget that keep their ``labels_present``. With a budget of 0 they are all that has a label. They are never
            evaluated.
        needs_labels: False for a method that learns without any: it takes no other budget than 0, which others refuse
            unless partly labeled items are used.

    Returns:
        The split.

    Raises:
        ConfigError: when a key has an impossible value, or the budget is larger than what is there.
        DataError: when the data list is inconsistent.
    """
    budget = _budget(label_budget, needs_labels, 0 if use_partial_labels else 1)
    if budget is None and not str(dataset_dir or ""):
        budget = PHANTOM_BUDGET
    source = read_datalist(dataset_dir, datalist, phantom, phantom_seed, image_key, label_key)
    held = listed(hold_out)
    if held:
        source = hold_out_groups(source, held, group_key, label_key)
    if not source.validation:
        _LOG.warning('datalist %s has no "validation" items: training runs without validation', source.source)
    for group in shared_groups(source, group_key):
        _LOG.warning("%s %s is in training and in validation: the figures will flatter", group_key, group)
    labeled, rest = _draw(source, budget, budget_unit, int(split_seed), group_key, image_key, label_key)
    partial = source.partial_label
    with_label = (*source.training, *source.validation, *partial)
    known = frozenset(f for i in with_label for f in files_of(i.get(label_key)))
    unlabeled = [without_labels(i, image_key, label_key, known) for i in (*rest, *source.unlabeled)]
    if use_partial_labels:
        labeled += partial
    else:
        stripped = [without_labels(i, image_key, label_key, known) for i in partial]
        unlabeled += [{k: v for k, v in item.items() if k != PRESENT_KEY} for item in stripped]
    if leaks := find_labels(unlabeled, image_key, label_key, known):
        raise ConfigError(f"datalist {source.source}: {leaks[0]}")
    return Splits(
        labeled=tuple(labeled),
        unlabeled=tuple(unlabeled),
        validation=tuple(source.validation),
        root=source.root,
        source=source.source,
        budget=budget,
        budget_unit=budget_unit,
        seed=int(split_seed),
        hold_out=held,
        held_back={
            **_held_back(rest, f"which label_budget {budget} holds back", source.root, image_key, label_key),
            **({} if use_partial_labels else _held_back(partial, _UNUSED, source.root, image_key, label_key)),
            **_held_back(source.test, 'which is in the list "test"', source.root, image_key, label_key),
        },
    )


def _held_back(items: Iterable[Item], why: str, root: Path, image_key: str, label_key: str) -> dict[str, str]:
    """Label file to the name of its case and the reason."""
    cases = ((item, f"{relative(files_of(item[image_key])[0], root)}, {why}") for item in items)
    return {file: case for item, case in cases for file in label_files(item, image_key, label_key)}


def _budget(value: Any, needs_labels: bool, least: int) -> int | None:
    """Read ``label_budget``; None and the words for it mean all labels."""
    is_all = value is None or (isinstance(value, str) and value.lower() in ("", "null", "none", "all"))
    if not needs_labels and (is_all or str(value) != "0"):
        raise ConfigError(
            f"label_budget is {value!r}, but this method uses no label: give 0, or --method_enabled false for plain "
            "supervision"
        )
    if is_all:
        return None
    try:
        budget = int(value)
    except (TypeError, ValueError):
        budget = -1
    if isinstance(value, bool) or str(budget) != str(value) or budget < least * needs_labels:
        raise ConfigError(f"label_budget {value!r} is not a number of labels: give {least} or more, or null for all")
    return budget


def _draw(
    source: Datalist, budget: int | None, unit: str, seed: int, group_key: str, image_key: str, label_key: str
) -> tuple[list[Item], list[Item]]:
    """Return labeled items in drawing order, and the rest of the training list."""
    with_label = [item for item in source.training if has_label(item, label_key)]
    if budget == 0:
        return [], list(source.training)
    if not with_label:
        raise ConfigError(f'datalist {source.source}: no item of "training" has a {label_key!r}; add some')
    units = _units(with_label, unit, group_key, source.root, image_key)
    order = sorted(units, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: list[str] = []
    for name in order:
        if budget is None or (len(chosen) < budget and not _all_empty(units[name], label_key)):
            chosen.append(name)
    if budget is not None and len(chosen) < budget:
        raise ConfigError(
            f"label_budget {budget} is more than there is: {len(chosen)} labeled {unit}s with a non-empty mask in "
            f"{source.source}; lower label_budget (null takes all)"
        )
    taken = frozenset(chosen)
    left = [item for name in order if name not in taken for item in units[name]]
    left += [item for item in source.training if not has_label(item, label_key)]
    return [item for name in chosen for item in units[name]], left


def _units(
    items: Iterable[Item], unit: str, group_key: str, root: Path, image_key: str
) -> Mapping[str, Sequence[Item]]:
    """Group items into units by name."""
    if unit != "item" and unit not in (*_GROUP_UNITS, group_key):
        raise ConfigError(f"budget_unit {unit!r} is unknown: give item, {', '.join(_GROUP_UNITS)}")
    units: dict[str, list[Item]] = {}
    for item in items:
        if unit != "item" and item.get(group_key) is None:
            raise ConfigError(
                f"budget_unit {unit} counts groups, but {relative(files_of(item[image_key])[0], root)} has no "
                f"{group_key!r}: add it to the datalist or correct group_key"
            )
        name = relative(files_of(item[image_key])[0], root) if unit == "item" else str(item[group_key])
        units.setdefault(name, []).append(item)
    return units


def _all_empty(items: Sequence[Item], label_key: str) -> bool:
    return all(is_empty_mask(path) for item in items for path in files_of(item[label_key]))


def _portable(item: Item, root: Path) -> Item:
    """The item with its paths relative to the data set."""

    def portable(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [portable(part) for part in value]
        if isinstance(value, Path):
            value = str(value)
        return relative(value, root) if isinstance(value, str) else value

    return {key: portable(value) for key, value in item.items()}
