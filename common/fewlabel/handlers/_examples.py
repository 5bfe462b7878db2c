# SPDX-License-Identifier: Apache-2.0
"""A case as a picture: one slice, kept small until it is known whether anybody will look at it."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewlabel.transforms._meta import plain
from fewlabel.transforms.overlay import Picture
from fewlabel.transforms.save_overlay import label_picture, read_picture, slices_last, stretch

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """Label and prediction of one slice, compressed; with its picture where that cannot be read from the file again.

    Args:
        file: what the case was read from.
        slice: index of the slice, counted from 0 in reading order, and how many there are; None for a picture.
        shape: (H, W) of the masks.
        masks: label and prediction, compressed.
        picture: JPEG, or None.
    """

    file: str
    slice: tuple[int, int] | None
    shape: tuple[int, int]
    masks: tuple[bytes, bytes]
    picture: bytes | None

    def panels(self, size_px: int) -> tuple[Picture, Labels, Labels]:
        """Return picture, label and prediction in one size, the longer side ``size_px``: small pictures grow.

        Raises:
            ValueError: when the file has another size than the masks.
        """
        if self.picture is not None:
            picture = np.asarray(Image.open(io.BytesIO(self.picture)).convert("RGB"))
        else:
            picture = read_picture(self.file)
            if picture.shape[:2] != self.shape:
                raise ValueError(
                    f"expected masks of the size of '{self.file}' (H, W) = {picture.shape[:2]}, received {self.shape}; "
                    "check Invertd and axes, or take the picture from the item (source='item')."
                )
        height, width = (max(1, round(n * size_px / max(self.shape))) for n in self.shape)
        sized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
        label, pred = (_nearest(_unpacked(packed, self.shape), height, width) for packed in self.masks)
        return sized, label, pred


def keep(item: dict[str, Any], keys: tuple[str, str, str], file: str, axes: str, picture_px: int | None) -> Kept:
    """Take what a picture of an evaluated item needs.

    Args:
        item: holds image, label and prediction, ``(C, W, H[, D])`` by ``axes``; a volume gives the slice across its
            last axis that shows most of the label, an axial one where its affine says how the patient lies.
        keys: of image, label and prediction.
        file: what the item was read from.
        axes: ``WH`` as MONAI's readers give, ``HW`` as networks see.
        picture_px: keep the image of the item too, at most so high and wide; None leaves it to the file.

    Raises:
        ValueError: when masks, or an image that is to be kept, do not lie on one grid.
    """
    image, label, pred = (plain(item[key]).cpu() for key in keys)
    parts = {keys[1]: label, keys[2]: pred} | ({} if picture_px is None else {keys[0]: image})
    if len({tuple(part.shape[1:]) for part in parts.values()}) > 1:
        shapes = ", ".join(f"{key} {tuple(part.shape)}" for key, part in parts.items())
        raise ValueError(f"expected one grid, (C, *spatial) of equal spatial sizes, received {shapes} of '{file}'.")
    index = None
    if label.ndim == 4:
        affine = item[keys[1]].affine if axes == "WH" and isinstance(item[keys[1]], MetaTensor) else None
        parts = {key: slices_last(part, affine) for key, part in parts.items()}
        index = (_fullest(parts[keys[1]], parts[keys[2]]), int(label.shape[-1]))
        parts = {key: part[..., index[0]] for key, part in parts.items()}
    masks = [label_picture(parts[key], axes) for key in keys[1:]]
    picture = None if picture_px is None else _jpeg(_shown(parts[keys[0]], axes), picture_px)
    height, width = masks[0].shape
    return Kept(file, index, (height, width), (_packed(masks[0]), _packed(masks[1])), picture)


def _fullest(label: Tensor, pred: Tensor) -> int:
    """The slice with the largest labeled area; without a label the predicted one, else the middle."""
    for mask in (label, pred):
        foreground = mask[0] if mask.shape[0] == 1 else mask[1:].amax(0)
        areas = (foreground > 0.5).sum((0, 1))
        if int(areas.max()) > 0:
            return int(areas.argmax())
    return int(label.shape[-1] // 2)


def _shown(image: Tensor, axes: str) -> Picture:
    """Three channels as color; of any other number the first, in gray."""
    order = (2, 1, 0) if axes == "WH" else (1, 2, 0)
    values = image.float().numpy().transpose(order)
    return stretch(values if values.shape[2] == 3 else values[..., 0])


def _jpeg(picture: Picture, size_px: int) -> bytes:
    small = Image.fromarray(picture)
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=90, subsampling=0)
    return stream.getvalue()


def _packed(labels: Labels) -> bytes:
    return zlib.compress(labels.astype(np.int32).tobytes(), 1)


def _unpacked(packed: bytes, shape: tuple[int, int]) -> Labels:
    return np.frombuffer(zlib.decompress(packed), np.int32).reshape(shape).astype(np.int64)


def _nearest(labels: Labels, height: int, width: int) -> Labels:
    rows = (np.arange(height) + 0.5) * labels.shape[0] / height
    columns = (np.arange(width) + 0.5) * labels.shape[1] / width
    return labels[rows.astype(int)[:, None], columns.astype(int)]
