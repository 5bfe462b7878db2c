# SPDX-License-Identifier: Apache-2.0
"""Write predicted masks over the pixels of their input files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Orientation
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewlabel.transforms._meta import FILE_KEY, meta_of, plain
from fewlabel.transforms.output_names import OutputNames
from fewlabel.transforms.overlay import COLORS, TRUTH_COLOR, Color, Picture, overlay

_PIL_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def read_picture(path: str | Path) -> Picture:
    """Read a file as a picture in its own size.

    Args:
        path: a PNG, JPEG, BMP or TIFF picture, or one slice of a format that MONAI reads (NIfTI, DICOM), whose values
            are stretched from the 1st to the 99th percentile.

    Returns:
        Shape ``(H, W, 3)``, uint8.

    Raises:
        ValueError: a file that holds more than one slice.
    """
    if Path(path).suffix.lower() in _PIL_SUFFIXES:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                return stretch(np.asarray(picture, np.float32))
            return np.asarray(picture.convert("RGB"))
    values = plain(LoadImage(image_only=True)(str(path))).numpy()
    values = values.reshape([n for n in values.shape if n != 1])
    if values.ndim != 2:
        raise ValueError(f"expected one slice in '{path}', received shape {values.shape}.")
    return stretch(values.T)


def stretch(values: NDArray[np.floating[Any]]) -> Picture:
    """Return any values as a picture, from black at their 1st percentile to white at their 99th.

    Args:
        values: ``(H, W)`` gray or ``(H, W, 3)`` color, whose channels are stretched alike.

    Returns:
        Shape ``(H, W, 3)``, uint8.
    """
    low, high = np.percentile(values, (1, 99))
    picture = np.rint(255 * np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def label_picture(mask: NdarrayOrTensor, axes: str = "WH") -> NDArray[np.int64]:
    """Return a mask as one label per pixel, in the axes of a picture.

    Args:
        mask: ``(W, H)`` or ``(1, W, H)`` with labels, or ``(C, W, H)`` one-hot with the background as channel 0.
        axes: order of the mask's last two axes, ``WH`` or ``HW``.

    Returns:
        Shape ``(H, W)``.
    """
    values = plain(mask).cpu().numpy()
    if values.ndim == 3:
        values = values[0] if values.shape[0] == 1 else values.argmax(0)
    return np.rint(values.T if axes == "WH" else values).astype(np.int64)


def slices_last(volume: Tensor, affine: Tensor | None) -> Tensor:
    """Turn a volume so that its slices look as radiologists know them.

    Args:
        volume: (C, *space).
        affine: of the volume, (4, 4); None leaves it as it is.

    Returns:
        (C, *space'), axes towards left, posterior, superior.
    """
    if affine is None:
        return volume
    return plain(Orientation(axcodes="LPS", labels=None)(MetaTensor(volume, affine=affine)))


class SaveOverlayd(MapTransform):
    """Write each predicted mask as a tint and contour over its input file, as PNG.

    The picture is read again from the file named in the metadata, so that the overlay shows the input's own pixels at
    its own size, not the resized and normalized tensor. It stands after ``Invertd`` and ``AsDiscreted``, beside
    ``SaveImaged``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        image_key: str | None = None,
        truth_key: str | None = None,
        data_root_dir: str | Path = "",
        output_postfix: str = "overlay",
        axes: str = "WH",
        alpha: float = 0.35,
        colors: Sequence[Color] = COLORS,
        truth_color: Color = TRUTH_COLOR,
        allow_missing_keys: bool = False,
    ) -> None:
        """Say what is written where.

        Args:
            keys: keys of integer masks, ``(1, W, H)`` or ``(W, H)``, or one-hot masks ``(C, W, H)``.
            output_dir: folder of the overlays, made when it is missing.
            image_key: key whose metadata names the input file; None takes the mask's own metadata.
            truth_key: key of a true mask in the same axes, drawn as a second contour where an item has it; None draws
                none.
            data_root_dir: sub-folders of the input below this folder are kept below ``output_dir``; empty keeps none.
            output_postfix: the file is ``<stem>_<output_postfix>.png``; an empty word leaves the stem alone.
            axes: order of the mask's axes. ``WH`` is what MONAI's readers and ``Invertd`` give, ``HW`` what networks
                see.
            alpha: opacity of the tint.
            colors: RGB of the classes.
            truth_color: RGB of the true contour.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ValueError: axes other than the two.
        """
        super().__init__(keys, allow_missing_keys)
        if axes not in ("WH", "HW"):
            raise ValueError(f"expected axes 'WH' or 'HW', received {axes!r}.")
        self.names = OutputNames(output_dir, data_root_dir, "overlays")
        self.image_key, self.truth_key = image_key, truth_key
        self.ending, self.axes = f"_{output_postfix}.png" if output_postfix else ".png", axes
        self.style: dict[str, Any] = {"alpha": alpha, "colors": colors, "truth_color": truth_color}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the overlays of one item; the item is returned as it came.

        Raises:
            ConfigError: two input files whose overlays would have the same name.
            ValueError: no file name in the metadata, or a mask of another size than its file.
        """
        out = dict(data)
        for key in self.key_iterator(out):
            source = meta_of(out[self.image_key or key]).get(FILE_KEY)
            if not source:
                raise ValueError(f"expected a file name in the metadata of '{self.image_key or key}', found none.")
            picture = read_picture(source)
            truth = out.get(self.truth_key) if self.truth_key is not None else None
            drawn = overlay(
                picture,
                self._labels(out[key], picture, str(key)),
                None if truth is None else self._labels(truth, picture, str(self.truth_key)),
                **self.style,
            )
            name = self.names.of(str(source))
            target = name.with_name(f"{name.name}{self.ending}")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(target)
        return out

    def _labels(self, mask: Any, picture: Picture, key: str) -> NDArray[np.int64]:
        labels = label_picture(mask, self.axes)
        if labels.shape != picture.shape[:2]:
            raise ValueError(
                f"expected '{key}' to be one mask of the size of its file (H, W) = {picture.shape[:2]}, received "
                f"{labels.shape} when read as axes={self.axes!r}; check Invertd and axes."
            )
        return labels
