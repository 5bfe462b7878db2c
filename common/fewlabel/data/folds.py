# SPDX-License-Identifier: Apache-2.0
"""Leave-one-group-out folds of a data list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fewlabel.data.datalist import Datalist
from fewlabel.data.files import natural
from fewlabel.data.labels import Item, has_label
from fewlabel.errors import ConfigError


def hold_out_groups(source: Datalist, groups: Sequence[str], group_key: str, label_key: str = "label") -> Datalist:
    """Make the items of some groups the validation list and train on all others.

    Args:
        source: the data list; ``training`` and ``validation`` are pooled.
        groups: values of ``group_key``.
        group_key: key of the group in each item.
        label_key: key of the label; held-out items without one cannot be scored and are dropped.

    Returns:
        The fold. Unlabeled and partly labeled items of a held-out group are gone: a method must not see the images that
        it is scored on.

    Raises:
        ConfigError: when a group does not exist, or nothing is left to train on.
    """
    pooled = [*source.training, *source.validation]
    there = _groups(pooled, group_key)
    if missing := [group for group in groups if group not in there]:
        named = ", ".join(sorted(there, key=natural)) or "none, because no item has that key"
        raise ConfigError(f"hold_out {', '.join(missing)} is no {group_key} of {source.source}; there are: {named}")
    held = frozenset(groups)
    fold = replace(
        source,
        training=[item for item in pooled if str(item.get(group_key)) not in held],
        validation=[i for i in pooled if str(i.get(group_key)) in held and has_label(i, label_key)],
        unlabeled=[item for item in source.unlabeled if str(item.get(group_key)) not in held],
        partial_label=[item for item in source.partial_label if str(item.get(group_key)) not in held],
    )
    if not fold.training or not fold.validation:
        left = "train on" if not fold.training else "validate on"
        raise ConfigError(
            f"hold_out {', '.join(groups)} of {source.source} leaves nothing to {left}: name other groups"
        )
    return fold


def group_names(source: Datalist, group_key: str, label_key: str = "label") -> list[str]:
    """Return the groups that can be held out, because they have labels, in natural order.

    Args:
        source: the data list; ``training`` and ``validation`` count.
        group_key: key of the group in each item.
        label_key: key of the label.
    """
    labeled = (item for item in (*source.training, *source.validation) if has_label(item, label_key))
    return sorted(_groups(labeled, group_key), key=natural)


def shared_groups(source: Datalist, group_key: str) -> list[str]:
    """Return the groups that training (labeled, partly labeled or not) shares with validation."""
    train = _groups([*source.training, *source.unlabeled, *source.partial_label], group_key)
    return sorted(train & _groups(source.validation, group_key), key=natural)


def _groups(items: Iterable[Item], group_key: str) -> set[str]:
    return {str(item[group_key]) for item in items if item.get(group_key) is not None}
