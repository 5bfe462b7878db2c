# SPDX-License-Identifier: Apache-2.0
"""How well scores rank foreground above background, without any threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.metrics._runs import Labels, as_array


def auc(scores: NDArray[Any] | Tensor, mask: Labels) -> float:
    """Return the area under the ROC curve.

    It is the probability that a random foreground pixel scores higher than a random background pixel, where equal
    scores count one half (Mann-Whitney)::

        AUC = (#{(f, b): s_f > s_b} + 1/2 #{(f, b): s_f = s_b}) / (F B)

    Args:
        scores: any shape, any real type; the larger, the more foreground.
        mask: of the same shape; not 0 is foreground.

    Returns:
        A number in 0..1, from exact counts; NaN where the mask has only one kind of pixel.

    Raises:
        ValueError: shapes differ, or a score is NaN.

    Example:
        >>> import numpy as np
        >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1]))
        0.875
    """
    values, foreground = as_array(scores), as_array(mask) != 0
    if values.shape != foreground.shape:
        raise ValueError(f"expected scores and mask of one shape, got {values.shape} and {foreground.shape}")
    if np.isnan(values).any():
        raise ValueError("expected scores that are numbers, got NaN")
    inside, outside = np.sort(values[foreground]), np.sort(values[~foreground])
    if inside.size == 0 or outside.size == 0:
        return math.nan
    below, not_above = (int(np.searchsorted(outside, inside, side).sum()) for side in ("left", "right"))
    return (below + not_above) / (2 * inside.size * outside.size)
