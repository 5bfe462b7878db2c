# SPDX-License-Identifier: Apache-2.0
"""How well scores rank foreground above background, without any threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from fewlabel.metrics._runs import Labels


def auc(scores: NDArray[Any] | Tensor, mask: Labels) -> float:
    """Return the area under the ROC curve.

    It is the probability that a random foreground pixel scores higher than a random background pixel, where equal
    scores count one half (Mann-Whitney U)::

        AUC = (sum of the foreground's ranks - n1 (n1 + 1) / 2) / (n1 n0)

    Args:
        scores: any shape, any real type; the larger, the more foreground.
        mask: of the same shape; not 0 is foreground.

    Returns:
        A number in 0..1, exact but for one rounding; NaN where the mask has only one kind of pixel.

    Raises:
        ValueError: shapes differ, or a score is NaN.

    Example:
        >>> import numpy as np
        >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1]))
        0.875
    """
    values, truth = (x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (scores, mask))
    if values.shape != truth.shape:
        raise ValueError(f"expected scores and mask of one shape, got {values.shape} and {truth.shape}")
    if np.isnan(values).any():
        raise ValueError("expected scores that are numbers, got NaN")
    foreground = truth.ravel() != 0
    ones = int(foreground.sum())
    zeros = foreground.size - ones
    if ones == 0 or zeros == 0:
        return math.nan
    ranks = float(rankdata(values.ravel())[foreground].sum())  # halves of integers: the sum is exact below 2^52
    return (ranks - ones * (ones + 1) / 2) / (ones * zeros)
