# SPDX-License-Identifier: Apache-2.0
"""The check before training: read every file once and report all that is wrong at once, with the remedy."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import ImageFile
from tqdm.auto import tqdm

from fewlabel.data.budget import Splits
from fewlabel.data.facts import Facts
from fewlabel.data.formats import files_of
from fewlabel.data.labels import Item, find_labels, has_label
from fewlabel.data.notebook import notebook
from fewlabel.data.rules import Known, image_problems, mask_problems, size_words
from fewlabel.errors import DataError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """What the check saw.

    Args:
        pairs: images with a mask.
        unlabeled: images without one.
        sizes: number of images by size, as ``"640 x 480"``.
        channels: number of images by channel count.
        values: distinct mask values, at most 256.
        warnings: what is odd but usable.
    """

    pairs: int
    unlabeled: int
    sizes: dict[str, int]
    channels: dict[int, int]
    values: tuple[float, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        sizes = ", ".join(f"{n} of {size}" for size, n in self.sizes.items())
        values = ", ".join(f"{value:g}" for value in self.values[:12]) + (" ..." if len(self.values) > 12 else "")
        masks = f", mask values {values}" if self.values else ""
        return f"{self.pairs} images with a mask and {self.unlabeled} without: {sizes}{masks}"


def check(
    splits: Splits | Sequence[Item],
    label_map: Mapping[Any, int] | None = None,
    channels: Collection[int] = (1, 3, 4),
    image_key: str = "image",
    label_key: str = "label",
    progress: bool = True,
) -> CheckReport:
    """Read all images and masks that training will read and stop with one sentence for every bad case.

    Checked: missing, damaged and multi-page files; channel count and color mode; NaN and infinity; empty sizes; masks
    of another size or grid than their image; colored masks; values that ``label_map`` does not name; unlabeled items
    that point to a label. What was found is noted in the cache folder, so that the next start reads changed files only.

    Args:
        splits: the split, or a list of items (those with a label are pairs), such as the test items of an evaluation.
        label_map: mask value (a number or its word, as JSON keys are) to class; 0 is background unless it is named.
            None accepts all whole numbers from 0 on.
        channels: channel counts that an image may have.
        image_key: key of the image.
        label_key: key of the label.
        progress: show a bar when it takes longer than a second.

    Returns:
        What was seen.

    Raises:
        DataError: with all problems.
    """
    if isinstance(splits, Splits):
        pairs, plain = [*splits.labeled, *splits.validation], list(splits.unlabeled)
    else:
        pairs = [item for item in splits if has_label(item, label_key)]
        plain = [item for item in splits if not has_label(item, label_key)]
    facts = _survey(pairs, plain, image_key, label_key, progress)
    labels = {file for item in pairs for file in files_of(item[label_key])}
    problems = find_labels(plain, image_key, label_key, labels)
    for item in (*pairs, *plain):
        problems += image_problems(item, image_key, facts, channels)
    allowed = None if label_map is None else frozenset({0.0, *(float(value) for value in label_map)})
    for item in pairs:
        problems += mask_problems(item, image_key, label_key, facts, allowed)
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    report = _report(pairs, plain, image_key, label_key, facts, label_map)
    for warning in report.warnings:
        _LOG.warning(warning)
    return report


def _survey(
    pairs: Sequence[Item], plain: Sequence[Item], image_key: str, label_key: str, progress: bool
) -> dict[tuple[str, bool], Facts]:
    """Facts of every file by (path, is mask)."""
    files = [(file, False) for item in (*pairs, *plain) for file in files_of(item[image_key])]
    files += [(file, True) for item in pairs for file in files_of(item[label_key])]
    files = list(dict.fromkeys(files))
    book = notebook()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, _whole_files_only():
        found = pool.map(lambda file: book.look(*file), files)
        bar = tqdm(found, "checking data", len(files), delay=1, disable=not progress, leave=False, unit="file")
        facts = dict(zip(files, bar, strict=True))
    book.save()
    return facts


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Let no library that fills truncated pictures with gray hide them."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _report(
    pairs: Sequence[Item],
    plain: Sequence[Item],
    image_key: str,
    label_key: str,
    facts: Known,
    label_map: Mapping[Any, int] | None,
) -> CheckReport:
    images = [facts[files_of(item[image_key])[0], False] for item in (*pairs, *plain)]
    masks = [file for item in pairs for file in files_of(item[label_key])]
    background = {0.0, *(float(value) for value, label in (label_map or {}).items() if label == 0)}
    empty = [file for file in dict.fromkeys(masks) if set(facts[file, True].values) <= background]
    warnings = []
    if empty:
        whole = "all" if len(empty) == len(set(masks)) else f"{len(empty)} of {len(set(masks))}"
        warnings.append(f"{whole} masks hold nothing but background, among them {empty[0]}")
    return CheckReport(
        pairs=len(pairs),
        unlabeled=len(plain),
        sizes=_counts(size_words(fact) for fact in images),
        channels=_counts(
            sum(facts[file, False].channels for file in files_of(item[image_key])) for item in (*pairs, *plain)
        ),
        values=tuple(sorted({value for file in masks for value in facts[file, True].values})),
        warnings=tuple(warnings),
    )


def _counts(values: Iterator[Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))
