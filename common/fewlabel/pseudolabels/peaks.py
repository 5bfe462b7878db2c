# SPDX-License-Identifier: Apache-2.0
"""Points from score maps: local maxima, of which near ones become one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import peak_local_max
from torch import Tensor
from torch.nn import functional as F

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.components import connected_components

Array = NDArray[Any]
FEWEST = 4  # the released code invents points below this number
INVENTED_BELOW = 255


def peaks(
    scores: Tensor,
    threshold: float = 0.5,
    blur_px: int = 13,
    min_distance_px: int = 6,
    border_px: int = 3,
    merge_px: int = 20,
    released: bool = False,
    seed: int = 0,
) -> list[Tensor]:
    r"""Return the local maxima of blurred scores, one for each nucleus.

    A pixel p is a peak if :math:`s(p) \ge s(q)` for all q of the square :math:`|p - q|_\infty \le d` and s(p) reaches
    the threshold; of peaks less than ``merge_px`` apart in the L1 norm one remains.

    Args:
        scores: (B, 1, H, W), floating, probabilities of nucleus.
        threshold: of the blurred score.
        blur_px: size of a Gaussian blur, odd; its sigma is 0.3 ((blur_px - 1) / 2 - 1) + 0.8, 2.3 for 13, as OpenCV
            derives it. 1 does not blur.
        min_distance_px: d.
        border_px: peaks nearer to the border are dropped: a row or column below this number, counted from 0.
        merge_px: 0 merges nothing.
        released: merge as the released code: from the highest peak to the lowest, a peak joins the first group that has
            any member in reach, and a group becomes its mean, cut to whole numbers, so that chains of nuclei can become
            one point between them. Of equal neighbors those at least ``min_distance_px`` apart stay. And where fewer
            than four points remain, four random ones in [0, 255)² replace them.
        seed: of the random points; used by ``released`` only.

    Returns:
        For each image (P, 2) int64, row and column, on the device of the scores; from the highest score to the lowest,
        equal ones in raster order (``released``: in the order of the groups).

    Raises:
        ValueError: shapes or numbers do not fit.

    Note:
        Without ``released``, the highest peak of a neighborhood remains, where it is; a plateau has its peak at the
        pixel nearest to its center. Blur and maxima are separable and batched; merging is linear in the number of
        peaks. Not differentiable.

    References:
        The released code of PSM, ``generate_point_label``; the paper (arXiv:2308.11144) has the local maximum and is
        silent about blur, threshold and merging.

    Example:
        >>> score = torch.zeros(1, 1, 9, 30)
        >>> score[0, 0, 4, [4, 24]] = torch.tensor([1.0, 0.9])
        >>> peaks(score, blur_px=1)[0].tolist()
        [[4, 4], [4, 24]]
    """
    if scores.ndim != 4 or scores.shape[1] != 1 or not scores.is_floating_point():
        raise ValueError(f"expected floating scores (B, 1, H, W), got {tuple(scores.shape)} of {scores.dtype}")
    if blur_px < 1 or blur_px % 2 == 0 or min(min_distance_px, border_px, merge_px) < 0:
        got = f"blur_px={blur_px}, min_distance_px={min_distance_px}, border_px={border_px}, merge_px={merge_px}"
        raise ValueError(f"expected an odd blur_px >= 1 and distances >= 0, got {got}")
    if not scores.numel():
        return [torch.empty(0, 2, dtype=torch.int64, device=scores.device) for _ in scores]
    blurred = blur(scores.detach().as_subclass(Tensor).float(), blur_px)
    kept = torch.where(blurred < threshold, 0, blurred)
    if released:
        found = [_released(image, min_distance_px, border_px, merge_px, seed) for image in kept[:, 0].cpu().numpy()]
    else:
        found = [_strongest(image, where, merge_px) for image, where in _candidates(kept, min_distance_px, border_px)]
    return [torch.from_numpy(points).to(scores.device) for points in found]


def blur(images: Tensor, size: int) -> Tensor:
    """Blur with a Gaussian whose sigma follows from its size, mirroring without repeating the border pixel.

    Args:
        images: (B, 1, H, W) float32.
        size: odd; 1 changes nothing. See :func:`peaks` for sigma.

    Returns:
        The same shape; what OpenCV's ``GaussianBlur(image, (size, size), 0)`` returns, up to rounding.
    """
    if size == 1:
        return images
    reach = size // 2
    sigma = 0.3 * (reach - 1) + 0.8
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weight = torch.softmax(-steps.square() / (2 * sigma * sigma), dim=0).to(images)
    wide = images[:, :, _mirrored(images.shape[2], reach, images.device)]
    rows = F.conv2d(wide, weight.view(1, 1, -1, 1))
    return F.conv2d(rows[..., _mirrored(images.shape[3], reach, images.device)], weight.view(1, 1, 1, -1))


def _mirrored(length: int, reach: int, device: torch.device) -> Tensor:
    """Return the index of the pixel at -reach ... length - 1 + reach, for images of any length."""
    period = max(2 * (length - 1), 1)
    place = torch.arange(-reach, length + reach, device=device) % period
    return torch.minimum(place, period - place) if length > 1 else torch.zeros_like(place)


def _candidates(scores: Tensor, distance: int, border: int) -> list[tuple[Array, Array]]:
    """Return of each image the scores and the components of its maxima."""
    size = 2 * distance + 1
    highest = F.max_pool2d(F.max_pool2d(scores, (size, 1), 1, (distance, 0)), (1, size), 1, (0, distance))
    maxima = (scores == highest) & (scores > 0)
    inside = torch.zeros_like(maxima)
    inside[..., border : maxima.shape[2] - border, border : maxima.shape[3] - border] = True
    labels, _ = connected_components(maxima & inside, 8)
    return list(zip(scores[:, 0].cpu().numpy(), labels[:, 0].cpu().numpy(), strict=True))


def _strongest(scores: Array, labels: Array, merge: int) -> Array:
    """Return a point a plateau, from the highest on, without those in reach of a higher one."""
    points = np.argwhere(labels)  # in raster order
    plateau = labels[labels > 0] - 1
    centers = np.stack([np.bincount(plateau, axis) for axis in points.T], axis=1) / np.bincount(plateau)[:, None]
    off = np.square(points - centers[plateau]).sum(axis=1)
    order = np.lexsort((off, plateau))
    points = points[order[np.unique(plateau[order], return_index=True)[1]]]
    points = points[np.argsort(-scores[tuple(points.T)], kind="stable")]
    groups = _groups(points, scores.shape[0], scores.shape[1], merge, False)
    return points[np.unique(groups, return_index=True)[1]]


def _released(scores: Array, distance: int, border: int, merge: int, seed: int) -> Array:
    """Return the means of chained peaks, or points that nothing speaks for."""
    points = peak_local_max(scores, min_distance=distance, exclude_border=border).astype(np.int64)
    groups = _groups(points, scores.shape[0], scores.shape[1], merge, True)
    if len(points) == 0 or groups.max() + 1 < FEWEST:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(INVENTED_BELOW, (FEWEST, 2), generator=generator).numpy()
    sizes = np.bincount(groups)[:, None]
    return (np.stack([np.bincount(groups, axis) for axis in points.T], axis=1) / sizes).astype(np.int64)


@compiled
def _groups(points: Array, height: int, width: int, reach: int, chain: bool) -> Array:
    """Number the groups of points: each joins the first group in reach, or opens one.

    In reach is less than ``reach`` in the L1 norm from the group's first point, or from any member if ``chain``. The
    points of a group that count lie in lists, one for each square of the plane, so that few are looked at.
    """
    side = max(reach, 1)
    rows, columns = height // side + 1, width // side + 1
    first = np.full((rows, columns), -1)
    after = np.full(len(points), -1)
    groups = np.empty(len(points), np.int64)
    opened = 0
    for i in range(len(points)):
        y, x = points[i]
        row, column = y // side, x // side
        group = opened
        for r in range(max(row - 1, 0), min(row + 2, rows)):
            for c in range(max(column - 1, 0), min(column + 2, columns)):
                j = first[r, c]
                while j >= 0:
                    if abs(points[j, 0] - y) + abs(points[j, 1] - x) < reach:
                        group = min(group, groups[j])
                    j = after[j]
        groups[i] = group
        if group == opened or chain:
            after[i] = first[row, column]
            first[row, column] = i
        if group == opened:
            opened += 1
    return groups
