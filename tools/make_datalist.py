# SPDX-License-Identifier: Apache-2.0
"""Write a data list from folders of images and masks.

``python tools/make_datalist.py --images data/frames --labels data/masks --group_pattern "OP[0-9]+" --validation OP3``
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fire

from fewlabel.data import datalist_from_folders
from fewlabel.errors import ConfigError
from fewlabel.files import write_json


def make_datalist(
    images: str,
    labels: str | None = None,
    unlabeled: str | None = None,
    output: str | None = None,
    validation: float | str | Sequence[str] = 0.2,
    test: float | str | Sequence[str] = 0.0,
    group_pattern: str | None = None,
    group_key: str = "video",
    label_suffix: str = "",
    image_suffix: str = "",
    seed: int = 0,
) -> None:
    """Pair images with masks by name, set whole groups aside, and write a Decathlon-style JSON.

    Args:
        images: folder of images.
        labels: folder of masks with the names of the images; images without a mask become unlabeled.
        unlabeled: a further folder of images without masks.
        output: the file to write; by default datalist.json in the deepest folder that holds all of these.
        validation: share of the labeled items, as whole groups, or names of groups.
        test: the same for the test list.
        group_pattern: regular expression that finds the group (patient, video) in a name.
        group_key: key that the group gets in each item.
        label_suffix: what mask names have in addition, such as _mask.
        image_suffix: what image names have in addition, such as _0000.
        seed: of the draw of groups.
    """
    root = Path(output).expanduser().absolute().parent if output else None
    lists = datalist_from_folders(
        images,
        labels,
        unlabeled,
        validation=validation,
        test=test,
        group_pattern=str(group_pattern) if group_pattern else None,
        group_key=group_key,
        label_suffix=label_suffix,
        image_suffix=image_suffix,
        seed=seed,
        root=root,
    )
    folder = lists.pop("root")
    path = Path(output).expanduser().absolute() if output else folder / "datalist.json"
    if path.exists():
        raise ConfigError(f"{path} exists and is not overwritten: name another file with --output, or remove it")
    write_json(path, lists)
    print(f"{path}: " + ", ".join(f"{len(items)} {name}" for name, items in lists.items()))
    print(f"train on it with: --dataset_dir {folder} --datalist {path.name}")


if __name__ == "__main__":
    fire.Fire(make_datalist)
