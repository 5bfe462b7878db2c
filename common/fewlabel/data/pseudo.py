# SPDX-License-Identifier: Apache-2.0
"""Items whose labels an earlier stage makes: where each of their files will be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewlabel.data.formats import files_of, stem
from fewlabel.data.labels import Item


def pseudo_file(folder: str | Path, index: int, item: Item, kind: str, image_key: str = "image") -> Path:
    """Return where a stage keeps what it made of an item.

    Args:
        folder: of the stage.
        index: place of the item in its list; tells apart images of one name in several folders.
        item: the item.
        kind: what it is, such as ``mask`` or ``voronoi``: the name of the subfolder.
        image_key: key of the image.

    Example:
        >>> pseudo_file("stage", 3, {"image": "slides/a/tile_7.png"}, "mask").as_posix()
        'stage/mask/00003_tile_7.png'
    """
    return Path(folder) / kind / f"{index:05d}_{stem(files_of(item[image_key])[0])}.png"


def pseudo_items(
    items: Sequence[Item], mask_folder: str | Path, voronoi_folder: str | Path | None = None, image_key: str = "image"
) -> list[Item]:
    """Return the items with the files of their pseudo labels, which need not be there yet.

    Args:
        items: without labels, in the order in which the stages have them.
        mask_folder: the stage that makes pseudo masks (key ``pseudo_mask``: 0 background, 1 object).
        voronoi_folder: the stage that makes Voronoi labels (key ``voronoi``: 0 edge, 1 seed, 255 ignored); None leaves
            the key out.
        image_key: key of the image.
    """
    stages = {"pseudo_mask": ("mask", mask_folder), "voronoi": ("voronoi", voronoi_folder)}
    return [
        dict(item)
        | {
            key: str(pseudo_file(folder, index, item, kind, image_key))
            for key, (kind, folder) in stages.items()
            if folder is not None
        }
        for index, item in enumerate(items)
    ]
