# SPDX-License-Identifier: Apache-2.0
"""Metrics of instances as they are defined, mask by mask in double loops; and label maps to try them on."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Map = NDArray[Any]


def masks(labels: Map) -> list[Map]:
    return [labels == value for value in sorted({*labels.ravel().tolist()} - {0})]


def iou(a: Map, b: Map) -> float:
    return float((a & b).sum() / (a | b).sum())


def aji(pred: Map, truth: Map) -> float:
    found, used, shared, union = masks(pred), set(), 0, 0
    for g in masks(truth):
        scores = [iou(g, s) for s in found]
        if max(scores, default=0.0) == 0:
            union += g.sum()
            continue
        best = scores.index(max(scores))
        used.add(best)
        shared += (g & found[best]).sum()
        union += (g | found[best]).sum()
    union += sum(s.sum() for i, s in enumerate(found) if i not in used)
    return float(shared / union) if union else 1.0


def pairings(pred: Map, truth: Map) -> list[list[tuple[Map, Map]]]:
    """All ways to pair as many instances as there can be, each with one other."""
    p, t = masks(pred), masks(truth)
    if len(p) < len(t):
        return [[(b, a) for a, b in pairs] for pairs in pairings(truth, pred)]
    return [list(zip(chosen, t, strict=True)) for chosen in permutations(p, len(t))]


def aji_plus(pred: Map, truth: Map) -> set[float]:
    """The AJI of every pairing whose total IoU is maximal; there may be several."""
    areas = (pred != 0).sum() + (truth != 0).sum()
    if not areas:
        return {1.0}
    best: dict[float, set[float]] = {}
    for pairs in pairings(pred, truth):
        shared = sum(int((s & g).sum()) for s, g in pairs)
        total = round(sum(iou(s, g) for s, g in pairs), 9)
        best.setdefault(total, set()).add(float(shared / (areas - shared)))
    return best[max(best)]


def object_dice(pred: Map, truth: Map) -> float:
    if not pred.any() and not truth.any():
        return 1.0
    total = 0.0
    for own, other in ((masks(truth), masks(pred)), (masks(pred), masks(truth))):
        for a in own:
            shared = [int((a & b).sum()) for b in other]
            if max(shared, default=0):
                b = other[shared.index(max(shared))]
                total += a.sum() / sum(m.sum() for m in own) * 2 * max(shared) / (a.sum() + b.sum()) / 2
    return float(total)


def panoptic(pred: Map, truth: Map, min_iou: float = 0.5) -> tuple[float, float, float]:
    p, t = masks(pred), masks(truth)
    if not p and not t:
        return 1.0, 1.0, 1.0
    hits = [v for s in p for g in t if (v := iou(s, g)) > min_iou]
    f1 = 2 * len(hits) / (len(p) + len(t))
    quality = sum(hits) / len(hits) if hits else 0.0
    return f1 * quality, quality, f1


def detections(pred: Map, truth: Map, radius: float) -> tuple[int, float]:
    """The largest number of pairs of points within the radius, and the smallest total distance of so many."""
    small, large = sorted((pred, truth), key=len)
    found = []
    for chosen in permutations(large, len(small)):
        far = [float(np.hypot(*(np.asarray(a) - b))) for a, b in zip(small, chosen, strict=True)]
        near = [d for d in far if d <= radius]
        found.append((-len(near), sum(near)))
    count, distance = min(found)
    return -count, distance


def discs(seed: int, count: int = 30, size: int = 90) -> tuple[Map, Map]:
    """Prediction and truth of overdrawn discs: hits, splits, mergers, misses, false alarms."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    maps = np.zeros((2, size, size), np.int32)
    for value in range(1, count + 1):
        y, x = rng.integers(0, size, 2)
        for labels in maps[: rng.integers(1, 3)] if value % 5 else maps[1:]:
            dy, dx, radius = *rng.integers(-3, 4, 2), rng.integers(4, 9)
            labels[(rows - y - dy) ** 2 + (columns - x - dx) ** 2 <= radius**2] = value if value % 7 else 1
    return maps[0], maps[1]
