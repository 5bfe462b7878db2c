# SPDX-License-Identifier: Apache-2.0
"""Lists for evaluation and inference: test items, and images named by file, folder, pattern or text list."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewlabel.data.datalist import DEFAULT, read_datalist, unlabeled_of
from fewlabel.data.files import listed, natural
from fewlabel.data.folders import readable_files
from fewlabel.data.folds import hold_out_groups
from fewlabel.data.formats import SUFFIXES, files_of, kind, stem
from fewlabel.data.labels import Item
from fewlabel.errors import ConfigError, DataError


class TestList(NamedTuple):
    """The items to evaluate on, and the list that they come from.

    Args:
        name: ``test`` or ``validation``.
        items: image and label with absolute paths.
    """

    name: str
    items: tuple[Item, ...]


def test_list(
    dataset_dir: str | Path = "",
    datalist: str | Path = DEFAULT,
    phantom: str = "endoscopy",
    hold_out: str | Sequence[Any] | None = None,
    group_key: str = "video",
    phantom_seed: int = 0,
    image_key: str = "image",
    label_key: str = "label",
) -> TestList:
    """Return the list ``test`` of a data set, else ``validation``; only evaluation calls this.

    Args:
        dataset_dir: folder of the data; empty takes the built-in phantoms.
        datalist: JSON file, absolute or relative to ``dataset_dir``.
        phantom: which phantoms.
        hold_out: groups held out of training; then these groups are the list, whether or not there is a ``test``.
        group_key: key of the group in each item.
        phantom_seed: which draw of the phantoms.
        image_key: key of the image.
        label_key: key of the label.

    Returns:
        Name and items.

    Raises:
        ConfigError: when there is neither list.
        DataError: when items have no label.
    """
    source = read_datalist(dataset_dir, datalist, phantom, phantom_seed, image_key, label_key)
    held = listed(hold_out)
    if held:
        source = hold_out_groups(source, held, group_key, label_key)
    name, items = ("test", source.test) if source.test and not held else ("validation", source.validation)
    if not items:
        raise ConfigError(
            f'datalist {source.source} has neither "test" nor "validation" items: add some, or give --hold_out'
        )
    if problems := unlabeled_of(name, items, image_key, label_key):
        raise DataError([f"datalist {source.source}: {problem}" for problem in problems])
    return TestList(name, tuple(items))


def test_items(*args: Any, **kwargs: Any) -> list[Item]:
    """Return the items of :func:`test_list`, whose arguments it takes.

    Args:
        args: as there.
        kwargs: as there.
    """
    return list(test_list(*args, **kwargs).items)


# Neither is a test, whatever their names tell pytest.
TestList.__test__ = test_list.__test__ = test_items.__test__ = False  # type: ignore[attr-defined]


def inference_items(
    path: str | Path = "",
    datalist: str | Path = "",
    phantom: str = "endoscopy",
    phantom_seed: int = 0,
    image_key: str = "image",
    unique: bool = True,
) -> list[Item]:
    """Return the images to segment, without labels.

    Args:
        path: one image; a folder, searched with its subfolders in natural order (a folder of DICOM files is one
            image); a pattern such as ``frames/*.png``; a text file with one path a line, relative to its folder; empty
            takes the test images of the built-in phantoms.
        datalist: when given and found in the folder ``path``, its ``test`` list, else ``validation``, is taken instead
            of every image there, masks among them.
        phantom: which phantoms.
        phantom_seed: which draw of them.
        image_key: key of the image in the items.
        unique: refuse files of one folder that differ in their suffix only, because one mask would replace the other.

    Returns:
        ``[{image_key: absolute path}, ...]``.

    Raises:
        ConfigError: when there is nothing to segment.
        DataError: by ``unique``, with all such files.
    """
    here = Path(path).expanduser().absolute()
    if not str(path):
        found = test_list(phantom=phantom, phantom_seed=phantom_seed, image_key=image_key)
        images = [item[image_key] for item in found.items]
    elif str(datalist) and here.is_dir() and (here / datalist).is_file():
        source = read_datalist(here, datalist, image_key=image_key)
        images = [item[image_key] for item in source.test or source.validation]
    else:
        images = [str(file) for file in _find(here)]
    if not images:
        raise ConfigError(f"nothing to segment at {here}: give an image, a folder, a pattern or a text list")
    if unique and (problems := _shared_names(images)):
        raise DataError(problems)
    return [{image_key: image} for image in images]


def _shared_names(images: Sequence[Any]) -> list[str]:
    """Return one sentence for each file whose mask would replace that of another."""
    first: dict[Path, str] = {}
    problems = []
    for file in dict.fromkeys(files_of(image)[0] for image in images):
        other = first.setdefault(Path(file).with_name(stem(file)), file)
        if other != file:
            problems.append(f"the masks of {other} and {file} would have the same name: rename one, or move it")
    return problems


def _find(here: Path) -> list[Path]:
    if here.is_dir():
        return readable_files(here)
    if here.is_file():
        return _from_text(here) if here.suffix.lower() == ".txt" else _readable([here])
    matches = [Path(match) for match in glob.glob(str(here), recursive=True)]  # noqa: PTH207 - absolute patterns
    return sorted(_readable(matches), key=natural)


def _readable(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if kind(path)]


def _from_text(file: Path) -> list[Path]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    paths = [file.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    if bad := [str(path) for path in paths if not path.exists() or not kind(path)]:
        known = " ".join(SUFFIXES)
        raise DataError([f"{path}, named in {file}, does not exist or is none of {known}" for path in bad])
    return paths
