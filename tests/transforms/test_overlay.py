# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fewlabel.report import montage, overlay
from fewlabel.transforms.overlay import COLORS, TRUTH_COLOR


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), np.int64)
    mask[20:40, 30:60] = 1
    return image, mask


def test_tint_inside_contour_at_the_border_nothing_outside(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    out = overlay(image, mask, alpha=0.5)
    assert out.dtype == np.uint8 and bool((image == 100).all())
    assert bool((out[mask == 0] == 100).all())
    assert tuple(out[20, 30]) == COLORS[0]
    np.testing.assert_allclose(out[30, 45], (np.array(COLORS[0]) + 100) / 2, atol=1)


def test_truth_is_a_contour_in_its_own_color(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    truth = np.roll(mask, 5, axis=1)
    out = overlay(image, mask, truth > 0)
    assert tuple(out[20, 64]) == TRUTH_COLOR and tuple(out[30, 62]) == (100, 100, 100)


def test_classes_differ_frame_is_no_contour_and_gray_is_accepted() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[:, :10], mask[:, 20:] = 1, 2
    out = overlay(np.zeros((30, 30), np.uint8), mask, alpha=0.0)
    assert tuple(out[5, 9]) == COLORS[0] and tuple(out[5, 20]) == COLORS[1]
    assert tuple(out[0, 3]) == (0, 0, 0) and tuple(out[5, 15]) == (0, 0, 0)


def test_colors_stay_apart_for_color_blind_readers() -> None:
    to_deuteranope = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])  # Machado 2009
    seen = np.array([COLORS[0], COLORS[1], TRUTH_COLOR, (190, 90, 80)]) @ to_deuteranope.T
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 40


def test_montage_places_pictures_and_captions() -> None:
    pictures = [np.full((20, 30, 3), 10 * k, np.uint8) for k in range(5)] + [np.full((10, 15), 200, np.uint8)]
    sheet = montage(pictures, columns=3, gap_px=2)
    assert sheet.shape == (2 * 22 + 2, 3 * 32 + 2, 3)
    assert sheet[10, 10, 0] == 0 and sheet[10, 42, 0] == 10 and sheet[30, 10, 0] == 30
    assert sheet[26, 70, 0] == 200 and sheet[42, 90, 0] == 255
    with_text = montage(pictures, columns=3, captions=["a rather long caption that cannot fit"] * 6, gap_px=2)
    assert with_text.shape[0] > sheet.shape[0] and with_text.shape[1] == sheet.shape[1]
    assert int((with_text[22:38] < 128).all(-1).sum()) > 10


def test_wrong_input_is_refused(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    with pytest.raises(ValueError, match=r"mask of shape \(60, 80\), received \(80, 60\)"):
        overlay(image, mask.T)
    with pytest.raises(ValueError, match="received float64"):
        overlay(image / 255, mask)
    with pytest.raises(ValueError, match="received 0"):
        montage([])
