# SPDX-License-Identifier: Apache-2.0
"""Cells as points: the peaks of each class's score, each a small disk of a label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.errors import ConfigError
from fewlabel.pseudolabels import peaks


@dataclass(frozen=True)
class DetectionRules:
    """How cells are found in the probabilities of classes, where counts matter and outlines do not.

    Each class by itself: its probability is blurred, and of local maxima above the threshold that are less than
    ``merge_px`` apart the highest remains; see :func:`fewlabel.pseudolabels.peaks`. A cell is a disk around its peak;
    where disks meet, a pixel belongs to the nearest.

    Args:
        threshold: of the blurred probability, in (0, 1).
        blur_px: size of the Gaussian, odd; 1 does not blur.
        min_distance_px: half the side of the square in which a peak is the highest.
        merge_px: in the L1 norm; 0 merges nothing.
        radius_px: of the disks.

    Raises:
        ConfigError: a value out of its range.

    References:
        The paper (arXiv:2308.11144) takes local maxima of the score as cells and is silent about all numbers; these are
        those with which the released code finds points of nuclei.
    """

    threshold: float = 0.5
    blur_px: int = 13
    min_distance_px: int = 6
    merge_px: int = 20
    radius_px: int = 3

    def __post_init__(self) -> None:
        wrong = {
            "threshold": (not 0 < self.threshold < 1, "a number between 0 and 1"),
            "blur_px": (self.blur_px < 1 or self.blur_px % 2 == 0, "an odd number"),
            "min_distance_px": (self.min_distance_px < 1, "1 or more"),
            "merge_px": (self.merge_px < 0, "a number that is not negative"),
            "radius_px": (self.radius_px < 0, "a number that is not negative"),
        }
        for key, (is_wrong, want) in wrong.items():
            if is_wrong:
                raise ConfigError(f"{key}: expected {want}, received {getattr(self, key)!r}.")


def detect(probs: Tensor, rules: DetectionRules) -> tuple[Tensor, Tensor, Tensor]:
    """Find the cells of one image.

    Args:
        probs: (K, H, W) float32 probabilities; channel 0 is the background.
        rules: see :class:`DetectionRules`.

    Returns:
        Label map (1, H, W) int32, 0 and 1 ... N in raster order of the peaks; class (N,) int64, 1 ... K - 1, and
        probability (N,) float32, that of the class at the peak, not blurred. On the CPU.

    Example:
        >>> score = torch.zeros(12, 30)
        >>> score[6, 8] = 0.9
        >>> rules = DetectionRules(blur_px=1, radius_px=1)
        >>> labels, kinds, probability = detect(torch.stack([1 - score, score]), rules)
        >>> (labels[0] == 1).nonzero().tolist(), kinds.tolist()
        ([[5, 8], [6, 7], [6, 8], [6, 9], [7, 8]], [1])
    """
    found = peaks(probs[1:, None], rules.threshold, rules.blur_px, rules.min_distance_px, merge_px=rules.merge_px)
    points = torch.cat(found).cpu().numpy()
    kinds = np.repeat(np.arange(1, len(found) + 1), [len(part) for part in found])
    place = points[:, 0] * probs.shape[2] + points[:, 1]
    _, first = np.unique(place, return_index=True)  # of two classes at one pixel the first remains
    points, kinds = points[first], kinds[first]
    probability = probs.cpu().numpy()[kinds, points[:, 0], points[:, 1]]
    labels = _disks(points, (probs.shape[1], probs.shape[2]), rules.radius_px)
    return torch.from_numpy(labels)[None], torch.from_numpy(kinds), torch.from_numpy(probability).float()


def _disks(points: NDArray[np.int64], shape: tuple[int, int], radius: int) -> NDArray[np.int32]:
    """Number the disks around points (N, 2), from all centers outwards at once."""
    labels = np.zeros(shape, np.int32)
    numbers = np.arange(1, len(points) + 1, dtype=np.int32)
    steps = np.indices((2 * radius + 1,) * 2).reshape(2, -1).T - radius
    far = np.square(steps).sum(axis=1)
    for step in steps[np.argsort(far, kind="stable")][: int((far <= radius * radius).sum())]:
        at = points + step
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        rows, columns = at[inside].T
        free = labels[rows, columns] == 0
        labels[rows[free], columns[free]] = numbers[inside][free]
    return labels
