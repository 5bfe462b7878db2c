# SPDX-License-Identifier: Apache-2.0
"""Peaks; oracles: scikit-image, SciPy's blur, and merging with all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature import peak_local_max
from torch import Tensor

from fewlabel.pseudolabels import peaks
from fewlabel.pseudolabels.peaks import blur


def bumps(seed: int, shape: tuple[int, int] = (90, 120), count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    score = np.zeros(shape)
    score[rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)] = rng.random(count)
    score = gaussian_filter(score, 5)
    return (score / score.max()).astype(np.float32)


def maxima(score: np.ndarray, threshold: float, distance: int = 6, border: int = 3) -> np.ndarray:
    found = peak_local_max(np.where(score < threshold, 0, score), min_distance=distance, exclude_border=border)
    return np.asarray(found)


def strongest(points: np.ndarray, reach: int) -> list[list[int]]:
    kept: list[np.ndarray] = []
    for p in points:
        if all(np.abs(p - q).sum() >= reach for q in kept):
            kept.append(p)
    return [list(map(int, p)) for p in kept]


def chained(points: np.ndarray, reach: int) -> list[list[int]]:
    groups: list[list[np.ndarray]] = []
    for p in points:
        near = [g for g in groups if any(np.abs(p - q).sum() < reach for q in g)]
        near[0].append(p) if near else groups.append([p])
    return [[int(c) for c in np.mean(g, axis=0)] for g in groups]


@pytest.mark.parametrize("size", [3, 13, 25])
@pytest.mark.parametrize("shape", [(31, 40), (5, 3), (1, 30), (2, 2)])
def test_blur_is_opencv_s(size: int, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(shape)
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    expected = gaussian_filter(image, sigma, mode="mirror", radius=size // 2)
    got = blur(torch.from_numpy(image)[None, None], size)[0, 0]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("merge", [0, 12, 20, 45])
@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5])
def test_against_all_pairs(merge: int, threshold: float) -> None:
    scores = np.stack([bumps(seed) for seed in range(4)])[:, None]
    clean, released = (
        peaks(torch.from_numpy(scores), threshold, blur_px=1, merge_px=merge, released=r) for r in (False, True)
    )
    for b in range(4):
        found = maxima(scores[b, 0], threshold)
        assert clean[b].tolist() == strongest(found, merge)
        expected = chained(found, merge)
        if len(expected) >= 4:
            assert released[b].tolist() == expected


def test_two_forms_differ_on_a_chain() -> None:
    score = torch.zeros(1, 1, 40, 80)
    score[0, 0, 20, [10, 25, 40, 55]] = torch.tensor([0.9, 0.8, 0.7, 0.6])
    for row, column in ((5, 5), (5, 75), (36, 5), (36, 75)):
        score[0, 0, row, column] = 0.55
    assert peaks(score, blur_px=1)[0][:2].tolist() == [[20, 10], [20, 40]]
    assert peaks(score, blur_px=1, merge_px=15)[0][:4].tolist() == [[20, 10], [20, 25], [20, 40], [20, 55]]
    assert [20, 32] in peaks(score, blur_px=1, released=True)[0].tolist()


def test_blurred_disks_have_a_peak_in_the_middle() -> None:
    from tests.pseudolabels.tiles import CENTERS, disks

    found = peaks(disks()[None, None].float())[0]
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == sorted(map(list, CENTERS))


def test_a_plateau_has_one_peak() -> None:
    flat = torch.zeros(1, 1, 60, 90)
    flat[..., 10:50, 20:81] = 1
    assert peaks(flat, blur_px=1)[0].tolist() == [[29, 50]]
    assert peaks(torch.ones(1, 1, 31, 41))[0].tolist() == [[15, 20]]


def test_threshold_and_border() -> None:
    score = torch.zeros(1, 1, 40, 40)
    score[0, 0, 2, 20], score[0, 0, 37, 20], score[0, 0, 20, 3], score[0, 0, 20, 36] = 0.9, 0.9, 0.5, 0.7
    assert peaks(score, blur_px=1, merge_px=0)[0].tolist() == [[20, 36], [20, 3]]
    assert peaks(score, blur_px=1, merge_px=0, border_px=0)[0].shape == (4, 2)
    assert peaks(score, 0.51, blur_px=1)[0].tolist() == [[20, 36]]


def test_too_few_points_are_invented_in_the_released_form_only() -> None:
    nothing = torch.zeros(2, 1, 64, 64)
    assert [p.shape for p in peaks(nothing)] == [(0, 2), (0, 2)]
    one, other = (peaks(nothing, released=True, seed=s)[0] for s in (0, 1))
    assert one.shape == (4, 2) and int(one.min()) >= 0 and int(one.max()) < 255
    assert torch.equal(one, peaks(nothing, released=True)[0]) and not torch.equal(one, other)


def test_many_peaks_take_no_quadratic_time() -> None:
    """Each point looks at its neighbors only: a grid of 40,000 peaks would be 8e8 pairs."""
    score = torch.zeros(1, 1, 1400, 1400)
    score[0, 0, 7::14, 7::14] = 1
    assert peaks(score, blur_px=1, merge_px=14)[0].shape == (10_000, 2)


def test_mistakes() -> None:
    scores: Tensor = torch.zeros(1, 1, 8, 8)
    for wrong in (scores[0], scores.expand(1, 2, 8, 8), scores.long()):
        with pytest.raises(ValueError, match="expected floating scores"):
            peaks(wrong)
    for options in ({"blur_px": 4}, {"blur_px": 0}, {"merge_px": -1}):
        with pytest.raises(ValueError, match="odd blur_px"):
            peaks(scores, **options)
    assert peaks(torch.zeros(0, 1, 8, 8)) == []
    assert peaks(torch.zeros(1, 1, 0, 8))[0].shape == (0, 2)
