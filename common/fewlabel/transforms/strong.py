# SPDX-License-Identifier: Apache-2.0
"""The whole strong augmentation of a method as one line of a config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose

from fewlabel.errors import ConfigError
from fewlabel.transforms.color import RandColorJitterd, RandGaussianBlurd, RandGrayscaled
from fewlabel.transforms.geometry import RandWarpd
from fewlabel.transforms.gridmask import RandGridMaskd

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_MODERATE_WARP: dict[str, Any] = {
    "rotate_first": 0.0,
    "shear": 0.0,
    "rotate": 30.0,
    "scale": (0.8, 1.25),
    "translate": (0.1, 0.1),
}


def _paper(keys: list[str], mode: list[str], image_key: str, mean: Sequence[float]) -> list[Any]:
    return [
        RandWarpd(keys, mode, allow_missing_keys=True),
        RandColorJitterd(image_key, hue=0.5),
        RandGrayscaled(image_key, prob=0.2),
        RandGaussianBlurd(image_key, kernel_size=3, sigma=(0.1, 2.0)),
        RandGridMaskd(image_key, prob=0.8, fill=mean),
    ]


def _moderate(keys: list[str], mode: list[str], image_key: str, mean: Sequence[float]) -> list[Any]:
    return [
        RandWarpd(keys, mode, allow_missing_keys=True, **_MODERATE_WARP),
        RandColorJitterd(image_key, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, prob=0.8),
        RandGaussianBlurd(image_key, kernel_size=3, sigma=(0.1, 2.0), prob=0.3),
    ]


def _weak(keys: list[str], mode: list[str], image_key: str, mean: Sequence[float]) -> list[Any]:
    return []


STRENGTHS: dict[str, Callable[[list[str], list[str], str, Sequence[float]], list[Any]]] = {
    "paper": _paper,
    "moderate": _moderate,
    "weak": _weak,
}


class StrongAugmentd(Compose):
    """Augment a picture, and its mask where there is one, at a strength chosen by one word.

    - ``paper``: the list of the MMS paper. Rotation by up to 90 degrees, flips, rotation again with translation by
      half the frame and shear of 30 degrees (one sampling, see :class:`~fewlabel.transforms.RandWarp`), any hue, gray
      in one case of five, blur of three pixels, GridMask in four cases of five.
    - ``moderate``: an ordinary set for supervised training. Flips, rotation by up to 30 degrees, scale 0.8 to 1.25,
      shift by a tenth, mild brightness, contrast, saturation and hue, some blur.
    - ``weak``: nothing, what the paper does to labeled frames.

    It stands between ``Resized`` and ``NormalizeIntensityd``, on RGB in ``[0, 1]``. The paper applies GridMask after
    normalization and writes 0; here it writes the mean color before normalization, which gives the same numbers and
    leaves one normalization for all streams. Set ``mean`` to the ``subtrahend`` of that normalization.

    Example:
        >>> import torch
        >>> augment = StrongAugmentd(label_key="label").set_random_state(seed=0)
        >>> item = augment({"image": torch.rand(3, 48, 64), "label": torch.ones(1, 48, 64)})
        >>> tuple(item["image"].shape), item["label"].unique().tolist()
        ((3, 48, 64), [0.0, 1.0])

    References:
        Lou et al., "Min-Max Similarity", arXiv 2203.15177; the list follows the authors' released code.
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str | None = None,
        strength: str = "paper",
        mean: Sequence[float] = IMAGENET_MEAN,
    ) -> None:
        """Build the list.

        Args:
            image_key: key of the picture, ``(3, H, W)``, float32 in ``[0, 1]``.
            label_key: key of the mask, ``(1, H, W)``, which gets the geometric part with nearest-neighbor sampling;
                items without it pass. None: pictures only, a mask in the item stays where it was.
            strength: ``paper``, ``moderate`` or ``weak``.
            mean: color that GridMask writes, the mean that is later subtracted.

        Raises:
            ConfigError: an unknown strength.
        """
        if strength not in STRENGTHS:
            raise ConfigError(f"augmentation strength '{strength}' is unknown: choose one of {', '.join(STRENGTHS)}.")
        keys = [image_key] if label_key is None else [image_key, label_key]
        transforms = STRENGTHS[strength](keys, ["bilinear", "nearest"][: len(keys)], image_key, mean)
        super().__init__(transforms)
        self.strength = strength
