# SPDX-License-Identifier: Apache-2.0
"""What a bundle compares: the contents of its ``configs/experiments.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from fewlabel.data.datalist import DEFAULT, read_datalist
from fewlabel.data.folds import group_names
from fewlabel.errors import ConfigError

LEAVE_ONE_OUT = "leave_one_out"

_KEYS = frozenset(
    "_desc_ profile metric also lower_is_better baseline budgets folds draws variants keys claims".split()
)
_VARIANT_KEYS = frozenset("_desc_ title overlays keys budgets optional".split())


class Run(NamedTuple):
    """One training and evaluation: a variant at a budget on a replicate.

    Attributes:
        variant: name in ``experiments.json``.
        label_budget: labeled units.
        fold: the group that is held out; empty for the data list's own validation.
        draw: seed of the label draw, and of the training.
    """

    variant: str
    label_budget: int
    fold: str
    draw: int

    @property
    def replicate(self) -> tuple[str, int]:
        """What runs of different variants share when they are compared."""
        return self.fold, self.draw

    @property
    def folder(self) -> str:
        """Name of the folder of this run."""
        return re.sub(r"[^\w.-]", "_", "-".join(str(part) for part in self if part != ""))


@dataclass(frozen=True)
class Variant:
    """A configuration that is compared with others.

    Args:
        name: its name in ``experiments.json`` and in the CSV.
        title: its name in tables.
        overlays: config files, by stem, that lie over the profile.
        keys: config keys that it sets.
        budgets: the budgets it runs at; empty takes those of the plan.
        optional: left out unless asked for by name (it needs data of its own, say).
    """

    name: str
    title: str
    overlays: tuple[str, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    budgets: tuple[int, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Plan:
    """What to compare, fixed before any result is seen.

    Args:
        bundle: folder of the bundle.
        profile: config files, by stem, that all variants share.
        keys: config keys that all variants share.
        metric: the metric that is compared, a column of ``metrics.json``.
        lower_is_better: direction of that metric.
        baseline: the variant that all others are compared with.
        budgets: labeled units.
        folds: groups that are held out in turn; empty for one fold, the data list's own validation. In the file,
            ``"leave_one_out"`` stands for every group that has labels.
        draws: seeds of label draws.
        variants: by name, in the order of the tables.
        also: further columns that tables show, with their titles, such as ``{"pixel_f1": "pixel F1, %"}``; those with
            a percent sign are shares in [0, 1].
        claims: pairs of variants (the first is said to be better) by the words of the claim.
    """

    bundle: Path
    profile: tuple[str, ...]
    keys: Mapping[str, Any]
    metric: str
    lower_is_better: bool
    baseline: str
    budgets: tuple[int, ...]
    folds: tuple[str, ...]
    draws: tuple[int, ...]
    variants: Mapping[str, Variant]
    also: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def runs(self, variants: Sequence[str] | None = None) -> Iterator[Run]:
        """Yield all runs, replicate by replicate, so that a sweep that is cut short still holds whole comparisons.

        Args:
            variants: names; None takes all that are not optional.

        Raises:
            ConfigError: a name that is not in the plan.
        """
        chosen = [name for name, v in self.variants.items() if not v.optional] if variants is None else list(variants)
        if unknown := [name for name in chosen if name not in self.variants]:
            raise ConfigError(f"variant {unknown[0]} is unknown: experiments.json has {', '.join(self.variants)}")
        for draw, fold, budget in product(self.draws, self.folds or ("",), self.budgets):
            for name in chosen:
                if budget in (self.variants[name].budgets or self.budgets):
                    yield Run(name, budget, fold, draw)

    def configs(self, run: Run) -> list[str]:
        """Return the config files of a run, by stem, in their order."""
        return [*self.profile, *self.variants[run.variant].overlays]

    def settings(self, run: Run, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the config keys of a run.

        Args:
            run: the run.
            given: keys from the command line: they win over the plan's, the variant's win over them.
        """
        place: dict[str, Any] = {"hold_out": run.fold} if run.fold else {}
        place |= {"label_budget": run.label_budget, "split_seed": run.draw, "seed": run.draw}
        return {**self.keys, **(given or {}), **self.variants[run.variant].keys, **place}


def read_plan(bundle: str | Path, dataset_dir: str | Path = "", datalist: str = DEFAULT, **changes: Any) -> Plan:
    """Read ``configs/experiments.json`` of a bundle.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of the data, read where ``folds`` is ``"leave_one_out"``; empty is the bundle's phantoms.
        datalist: its data list.
        **changes: entries to replace, such as ``budgets=[8]``; None leaves the file's.

    Returns:
        The plan.

    Raises:
        ConfigError: when the file is missing, holds unknown keys, or names what does not exist.
    """
    root = Path(bundle).absolute()
    path = root / "configs" / "experiments.json"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: a sweep needs a plan; see CONTRIBUTING.md, 'Table row'")
    content = json.loads(path.read_text(encoding="utf-8")) | {k: v for k, v in changes.items() if v is not None}
    if unknown := sorted(content.keys() - _KEYS):
        raise ConfigError(f"{path}: key {unknown[0]!r} is unknown; known are {', '.join(sorted(_KEYS))}")
    variants = {name: _variant(name, about, root, path) for name, about in content["variants"].items()}
    plan = Plan(
        bundle=root,
        profile=tuple(content["profile"]),
        keys=dict(content.get("keys", {})),
        metric=str(content["metric"]),
        lower_is_better=bool(content.get("lower_is_better", False)),
        baseline=str(content["baseline"]),
        budgets=tuple(int(budget) for budget in content["budgets"]),
        folds=_folds(content.get("folds", ()), root, dataset_dir, datalist),
        draws=tuple(int(draw) for draw in content["draws"]),
        variants=variants,
        also=dict(content.get("also", {})),
        claims={claim: (str(one), str(other)) for claim, (one, other) in content.get("claims", {}).items()},
    )
    if unknown := sorted({name for pair in plan.claims.values() for name in pair} - variants.keys()):
        raise ConfigError(f"{path}: claims: {unknown[0]!r} is none of the variants {', '.join(variants)}")
    if plan.baseline not in variants:
        raise ConfigError(f"{path}: baseline {plan.baseline!r} is none of the variants {', '.join(variants)}")
    _require_configs(root, plan.profile, f"{path}: profile")
    return plan


def _folds(folds: Any, root: Path, dataset_dir: str | Path, datalist: str) -> tuple[str, ...]:
    """Return the groups that are held out in turn."""
    if folds != LEAVE_ONE_OUT:
        return tuple(str(fold) for fold in folds)
    config = json.loads((root / "configs" / "train.json").read_text(encoding="utf-8"))
    source = read_datalist(dataset_dir, datalist, config["splits"].get("phantom", "endoscopy"))
    found = group_names(source, config["group_key"])
    if len(found) < 2:
        raise ConfigError(
            f"folds {LEAVE_ONE_OUT}: {source.source} has {len(found)} values of {config['group_key']!r}, but two are "
            "needed: add that key to its items, or give --folds '[]' to score its own validation list"
        )
    return tuple(found)


def _variant(name: str, about: Mapping[str, Any], root: Path, path: Path) -> Variant:
    if unknown := sorted(about.keys() - _VARIANT_KEYS):
        raise ConfigError(f"{path}: variant {name}: key {unknown[0]!r} is unknown")
    overlays = tuple(about.get("overlays", ()))
    _require_configs(root, overlays, f"{path}: variant {name}")
    return Variant(
        name=name,
        title=str(about.get("title", name.replace("_", " "))),
        overlays=overlays,
        keys=dict(about.get("keys", {})),
        budgets=tuple(int(budget) for budget in about.get("budgets", ())),
        optional=bool(about.get("optional", False)),
    )


def _require_configs(root: Path, names: Sequence[str], where: str) -> None:
    for name in names:
        if not (root / "configs" / f"{name}.json").is_file():
            raise ConfigError(f"{where} names configs/{name}.json, which does not exist")
