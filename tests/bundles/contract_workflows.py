# SPDX-License-Identifier: Apache-2.0
"""The part of the contract that shows when MONAI opens the configs of a bundle; see ``contract.py``."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

STACKS = {
    "train": ("train", ("train",)),
    "train + light": ("train", ("train", "light")),
    "train + light + evaluate": ("train", ("train", "light", "evaluate")),
    "inference": ("inference", ("inference",)),
    "inference + light": ("inference", ("inference", "light")),
}


class Site:
    """A place to open configs at: a data set whose files do not exist, folders for results, and a foreign cwd."""

    def __init__(self, root: Path) -> None:
        self.data, self.out, self.cwd = (root / name for name in ("data", "out", "cwd"))
        for folder in (self.data, self.out, self.cwd):
            folder.mkdir()
        items = [
            {"image": f"{i}.png", "label": f"{i}_label.png", "video": f"v{i}", "patient": f"p{i}"} for i in range(9)
        ]
        lists = {"training": items[:4], "validation": items[4:6], "test": items[6:]}
        (self.data / "datalist.json").write_text(json.dumps(lists))

    def workflow(self, bundle: Path, names: tuple[str, ...], kind: str, **override: Any) -> ConfigWorkflow:
        """Return a workflow of configs of a bundle, not yet initialized."""
        paths = {
            "bundle_root": bundle,
            "dataset_dir": self.data,
            "output_dir": self.out,
            "ckpt_dir": self.out / "models",
        }
        return ConfigWorkflow(
            config_file=[str(bundle / "configs" / f"{name}.json") for name in names],
            workflow_type=kind,
            logging_file=False,
            **{"device": "cpu", **{key: str(path) for key, path in paths.items()}, **override},
        )


@contextmanager
def foreign_site() -> Iterator[Site]:
    """Work in a temporary folder that is not the bundle's."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        with chdir(site.cwd):
            yield site


def properties(bundle: Path) -> Iterator[str]:
    """MONAI's own check of its required and optional properties finds nothing missing or misnamed."""
    for name, (kind, names) in STACKS.items():
        with foreign_site() as site:
            workflow = site.workflow(bundle, names, kind)
            workflow.initialize()
            yield from (f"{name}: MONAI's property {missing} is missing or misnamed" for missing in _missing(workflow))


def _missing(workflow: ConfigWorkflow) -> list[str]:
    try:
        return list(workflow.check_properties() or [])
    except KeyError as error:  # MONAI 1.6 raises where it means to report
        return [str(error)]


def construction(bundle: Path) -> Iterator[str]:
    """Building the trainer (as MONAI Label and every check do) reads no image and writes nothing."""
    with foreign_site() as site:
        workflow = site.workflow(bundle, ("train", "light"), "train")
        workflow.parser.parse(reset=True)
        try:
            workflow.parser.get_parsed_content("train#trainer")
        except (Exception, SystemExit) as error:
            yield f"building train::trainer in another folder, its images being absent: {_innermost(error)}"
        for folder in (site.out, site.cwd):
            written = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
            yield from (f"building train::trainer writes {name}" for name in written)


def readers(bundle: Path) -> Iterator[str]:
    """Transforms of data sets can be pickled, since readers are not forked everywhere: macOS, Python 3.14."""
    with foreign_site() as site:
        parser = site.workflow(bundle, ("train", "light"), "train").parser
        parser.parse(reset=True)
        sets = {name: part.get("dataset") for name, part in parser.get().items() if isinstance(part, dict)}
        stages = [name for name, dataset in sets.items() if isinstance(dataset, dict) and "transform" in dataset]
        for name in stages:
            try:
                pickle.dumps(parser.get_parsed_content(f"{name}#dataset#transform"))
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                yield f"{name}::dataset::transform cannot be pickled for processes that read: {error}"


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


WORKFLOW_RULES: tuple[Callable[[Path], Iterator[str]], ...] = (properties, construction, readers)
