# SPDX-License-Identifier: Apache-2.0
"""The unlabeled images that a method trains on, also where the labeled list was replaced from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewlabel.data.budget import Splits
from fewlabel.data.dataset import CachedDataset
from fewlabel.data.formats import files_of
from fewlabel.data.items import inference_items
from fewlabel.data.labels import Item, without_labels
from fewlabel.errors import ConfigError

_LOG = logging.getLogger(__name__)


def unlabeled_pool(
    dataset: Any,
    splits: Splits | None,
    folder: str | Path = "",
    transform: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
    cache_rate: float | str = "auto",
    image_key: str = "image",
    label_key: str = "label",
) -> CachedDataset:
    """Return the data set of unlabeled images.

    As long as ``dataset`` holds the labeled items of ``splits``, these are the unlabeled items of ``splits``. MONAI
    Label puts a list of its own into ``train#dataset#data`` and knows no data set folder: then the images of ``folder``
    are taken, less those that have a label and the folders of the labels, so that the folder which the server watches
    may be given. Where there is none at all, the labeled images serve without their labels, with a warning.

    Args:
        dataset: the labeled data set; only its ``data`` is looked at.
        splits: the split of the config; None where the list was replaced and there is no data set folder.
        folder: images for lists replaced from outside (the key ``unlabeled_dir``).
        transform: preprocessing of unlabeled items.
        cache_rate: as in :class:`CachedDataset`.
        image_key: key of the image.
        label_key: key of the label.

    Returns:
        A data set whose items carry no label.

    Raises:
        ConfigError: when ``folder`` is given beside the bundle's own split, whose list ``unlabeled`` is for that.
    """
    own = splits is not None and dataset.data is splits.labeled
    if own and str(folder):
        raise ConfigError(
            f'unlabeled_dir {folder} is for MONAI Label: put its images into the list "unlabeled" of the datalist '
            "(tools/make_datalist.py --unlabeled FOLDER)"
        )
    items = (
        list(splits.unlabeled)
        if splits is not None and own
        else _from_folder(dataset.data, folder, image_key, label_key)
    )
    if not items:
        _LOG.warning("there are no unlabeled images: the %d labeled ones serve without their labels", len(dataset.data))
        items = [without_labels(item, image_key, label_key) for item in dataset.data]
    return CachedDataset(items, transform, cache_rate)


def training_images(splits: Splits | Sequence[Item], image_key: str = "image", label_key: str = "label") -> list[Item]:
    """Return the images that pre-training may see: all of training, whoever has a label, and none of validation.

    Sorted by file, so that the list, and with it a pre-training, is the same for every budget and draw.

    Args:
        splits: the split, or a list that was put in from outside.
        image_key: key of the image.
        label_key: key of the label.

    Returns:
        Items without labels.
    """
    items = [*splits.labeled, *splits.unlabeled] if isinstance(splits, Splits) else list(splits)
    known = frozenset(f for item in items for f in files_of(item.get(label_key)))
    bare = [without_labels(item, image_key, label_key, known) for item in items]
    return sorted(bare, key=lambda item: files_of(item[image_key]))


def _from_folder(labeled: Sequence[Item], folder: str | Path, image_key: str, label_key: str) -> list[Item]:
    """Return the images below a folder that are neither labeled nor labels themselves."""
    if not str(folder):
        return []
    images, labels = ({_real(f) for item in labeled for f in files_of(item.get(key))} for key in (image_key, label_key))
    masks = _mask_folders(_real(folder), images, labels)
    items = [(item, _real(item[image_key])) for item in inference_items(folder, image_key=image_key, unique=False)]
    return [item for item, file in items if file not in images | labels and masks.isdisjoint(file.parents)]


def _mask_folders(folder: Path, images: set[Path], labels: set[Path]) -> set[Path]:
    """Return the folders below ``folder`` that hold labels and no labeled image.

    MONAI Label keeps ``labels/final`` and its own predictions, ``labels/original``, in the folder of the images.
    """
    above = {parent for image in images for parent in image.parents}
    return {parent for label in labels for parent in label.parents if folder in parent.parents} - above


def _real(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()
