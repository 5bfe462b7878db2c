# SPDX-License-Identifier: Apache-2.0
"""Tell images that fit into memory in one piece from those that come in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewlabel.data.formats import files_of, kind
from fewlabel.data.image_regions import image_size
from fewlabel.data.labels import Item
from fewlabel.errors import DataError


def split_by_size(
    items: Sequence[Item], max_pixels: int = 1 << 22, image_key: str = "image"
) -> tuple[list[Item], list[Item]]:
    """Split a list by the number of pixels of the images, reading headers only.

    Args:
        items: with an image each. What is no single picture (NIfTI, DICOM, channels in several files) counts as small,
            and so does what does not exist, which the check before inference reports.
        max_pixels: the most that a small image has.
        image_key: key of the image.

    Returns:
        Small and large images, each in the order of ``items``.

    Raises:
        DataError: pictures whose header cannot be read, all of them at once.
    """
    small: list[Item] = []
    large: list[Item] = []
    problems: list[str] = []
    for item in items:
        files = files_of(item[image_key])
        pixels = 0
        if len(files) == 1 and kind(files[0]) == "picture" and Path(files[0]).is_file():
            try:
                height, width = image_size(files[0])
                pixels = height * width
            except DataError as error:
                problems += error.problems
        (small if pixels <= max_pixels else large).append(item)
    if problems:
        raise DataError(problems)
    return small, large
