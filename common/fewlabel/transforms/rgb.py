# SPDX-License-Identifier: Apache-2.0
"""Bring every picture, whatever its file format, to float32 RGB between 0 and 1."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform

from fewlabel.transforms._meta import drop_trailing_singletons, like, meta_of, plain, refusal

_NEEDS_CONVERSION = {"P": "palette indices", "PA": "palette indices", "CMYK": "CMYK inks", "LAB": "Lab", "HSV": "HSV"}
_TOLERANCE = 1e-3


class ToRGB(Transform):
    """Turn a channel-first picture into float32 RGB in ``[0, 1]``.

    Grey is repeated three times, alpha is dropped, 8-bit values are divided by 255 and 16-bit values by 65535;
    floating-point values must already lie in ``[0, 1]``. Metadata and applied operations of a MetaTensor stay, so
    that a later ``Invertd`` works. It stands after ``LoadImaged(dtype=None)`` (so that integers arrive as integers)
    and ``EnsureChannelFirstd``, and before ``Transposed``.

    Note:
        What MONAI's readers deliver, and what the config needs beyond ``LoadImaged`` and ``EnsureChannelFirstd``:

        ============================ ====================================== ==================================
        file                         arrives as                             needs
        ============================ ====================================== ==================================
        PNG, JPEG, BMP, 8 bit        uint8, 1 or 3 channels                 nothing
        grey PNG, 16 bit             int32, mode ``I;16``                   nothing (divided by 65535)
        RGBA or grey+alpha PNG       uint8, 4 or 2 channels                 nothing (alpha dropped)
        palette PNG, CMYK JPEG       indices or inks                        ``"reader": {"_target_": "PILReader",
                                                                            "converter": "$lambda im:
                                                                            im.convert('RGB')"}``
        TIFF                         as PNG (16-bit RGB as 8 bit)           ``"reader": "fewlabel.data.AnyReader"``
                                                                            or ``"PILReader"``
        NIfTI slice ``(W, H, 1)``    ``(1, W, H, 1)``                       nothing (singletons are dropped)
        NIfTI or DICOM intensities   int16 or float64 outside ``[0, 1]``    ``ScaleIntensityRanged`` before
        ============================ ====================================== ==================================
    """

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Convert one picture.

        Args:
            img: shape ``(C, ., .)`` or ``(C, ., ., 1)`` with C 1 (grey), 2 (grey, alpha), 3 or 4 (RGB, alpha); bool,
                uint8, uint16, int32 of a 16-bit picture file, or float in ``[0, 1]``.

        Returns:
            Shape ``(3, ., .)``, float32 in ``[0, 1]``, the container of the input.

        Raises:
            DataError: channels, pixel mode or values that are no picture; the sentence names file and remedy.
        """
        img = drop_trailing_singletons(img)
        if img.ndim != 3 or img.shape[0] not in (1, 2, 3, 4):
            raise refusal(
                img,
                f"is no picture: expected 1 to 4 channels first and two axes, received shape "
                f"{tuple(img.shape)}; check EnsureChannelFirstd in 'preprocessing'.",
            )
        mode = str(meta_of(img).get("mode", ""))
        if mode in _NEEDS_CONVERSION:
            raise refusal(
                img,
                f"holds {_NEEDS_CONVERSION[mode]} (mode {mode}), not colors: save it as RGB, or give "
                "LoadImaged a PILReader whose converter is $lambda im: im.convert('RGB').",
            )
        sixteen_bit = mode.startswith("I") or str(img.dtype) in ("uint16", "torch.uint16")  # plain() widens to int32
        values = _unit_range(plain(img), sixteen_bit, img)
        color = values[:1].expand(3, -1, -1) if values.shape[0] < 3 else values[:3]
        return like(color.contiguous(), img)


def _unit_range(values: torch.Tensor, sixteen_bit: bool, img: NdarrayOrTensor) -> torch.Tensor:
    if values.dtype == torch.bool:
        return values.float()
    if values.dtype == torch.uint8:
        return values.float().div_(255)
    if sixteen_bit and not values.is_floating_point():
        return values.to(torch.int32).float().div_(65535)
    if not values.is_floating_point():
        raise refusal(
            img,
            f"holds {values.dtype} numbers, whose black and white nobody knows: put "
            "ScaleIntensityRanged before ToRGBd in 'preprocessing'.",
        )
    values = values.float()
    low, high = (float(v) for v in values.aminmax()) if values.numel() else (0.0, 0.0)
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise refusal(
            img,
            f"holds values from {low:.6g} to {high:.6g}, expected 0 to 1: put "
            "ScaleIntensityRanged before ToRGBd in 'preprocessing'.",
        )
    return values.clone()


class ToRGBd(MapTransform):
    """Dictionary version of :class:`ToRGB`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        """Choose the keys.

        Args:
            keys: keys of the pictures.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        super().__init__(keys, allow_missing_keys)
        self.transform = ToRGB()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the pictures converted."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.transform(out[key])
        return out
