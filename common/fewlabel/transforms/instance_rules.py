# SPDX-License-Identifier: Apache-2.0
"""The rules by which probabilities become instances, one object for small images and for those that come in tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabel.errors import ConfigError

SPLITS = ("none", "watershed", "peaks")
_DEPTHS = {"none": 0.0, "watershed": 1.0, "peaks": 0.1}


@dataclass(frozen=True)
class InstanceRules:
    """How instances are cut out of a map of probabilities.

    A pixel belongs to an instance where the probability of all classes but the background exceeds ``threshold``. Holes
    of at most ``max_hole_px`` pixels are filled, 8-connected components are instances, those that touch are split,
    and what has fewer than ``min_object_px`` pixels is dropped. Areas count in the whole image, filled holes included.

    A component is split at its necks. Its score is the distance to its border (``watershed``) or the probability
    (``peaks``), smoothed; each summit that stands ``split_depth`` above the saddle to a higher one becomes an instance,
    and a watershed of the score divides the pixels among them. A component is split by itself, so its neighbors change
    nothing.

    Args:
        threshold: in ``[0, 1)``; 0.5 is the argmax of two classes.
        min_object_px: pixels that an instance must have.
        max_hole_px: pixels of the largest hole that is filled; 0 fills none, None all. A hole is a 4-connected
            component of the background that does not touch the border of the image.
        split: ``none``, ``watershed`` or ``peaks``.
        split_depth: height of a summit above its saddle: pixels (``watershed``) or probability (``peaks``); None takes
            1 px or 0.1.
        split_sigma_px: standard deviation of the Gaussian that smooths the score; 0 does not smooth.
        max_split_px: components whose bounding box has more pixels are left whole: they are no clump of cells, and
            memory stays bounded.

    Raises:
        ConfigError: a value out of its range.

    References:
        The paper takes components of the argmax and nothing else (``min_object_px=0, max_hole_px=0``). Small objects
        and holes: Qu et al., Weakly supervised deep nuclei segmentation using partial points annotation, IEEE TMI 2020.
    """

    threshold: float = 0.5
    min_object_px: int = 20
    max_hole_px: int | None = 64
    split: str = "none"
    split_depth: float | None = None
    split_sigma_px: float = 1.0
    max_split_px: int = 1 << 22

    def __post_init__(self) -> None:
        wrong = {
            "threshold": not 0 <= self.threshold < 1,
            "min_object_px": self.min_object_px < 0,
            "max_hole_px": self.max_hole_px is not None and self.max_hole_px < 0,
            "split": self.split not in SPLITS,
            "split_depth": self.split_depth is not None and self.split_depth <= 0,
            "split_sigma_px": self.split_sigma_px < 0,
        }
        expected = {"threshold": "a number from 0 to below 1", "split": f"one of {', '.join(SPLITS)}"}
        for key in (key for key, is_wrong in wrong.items() if is_wrong):
            want = expected.get(key, "a positive number" if key == "split_depth" else "a number that is not negative")
            raise ConfigError(f"{key}: expected {want}, received {getattr(self, key)!r}.")

    @property
    def depth(self) -> float:
        """Height of a summit above its saddle that makes it an instance."""
        return _DEPTHS[self.split] if self.split_depth is None else float(self.split_depth)


def foreground(scores: Tensor, softmax: bool = True) -> tuple[Tensor, Tensor | None]:
    """Return the probability that a pixel is no background, and its class among the others.

    Args:
        scores: (..., K, H, W), K >= 2, channel 0 the background; logits, or probabilities.
        softmax: scores are logits.

    Returns:
        Probability (..., H, W), float32, and the most probable class 1 ... K - 1 (..., H, W), uint8; None for K = 2.

    Raises:
        ValueError: fewer than two channels, or probabilities outside ``[0, 1]``.

    Example:
        >>> foreground(torch.tensor([[[0.0]], [[0.0]], [[0.0]]]))
        (tensor([[0.6667]]), tensor([[1]], dtype=torch.uint8))
    """
    if scores.ndim < 3 or not 2 <= scores.shape[-3] <= 256:
        raise ValueError(f"expected scores (K, H, W) of 2 to 256 classes, received shape {tuple(scores.shape)}.")
    probs = scores.float()
    if softmax:
        probs = probs.softmax(-3)
    elif probs.numel() and not (float(probs.min()) >= 0 and float(probs.max()) <= 1):
        raise ValueError(f"expected probabilities in [0, 1], received {float(probs.min()):.6g} to {probs.max():.6g}.")
    others = probs[..., 1:, :, :]
    kinds = None if scores.shape[-3] == 2 else (others.argmax(-3) + 1).to(torch.uint8)
    return others.sum(-3), kinds
