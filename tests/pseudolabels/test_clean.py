# SPDX-License-Identifier: Apache-2.0
"""Clean-up; the oracle is scikit-image, given a boolean mask or, as in the released code, an array of integers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from skimage import morphology

from fewlabel.pseudolabels import clean_mask


def speckled(seed: int, fill: float) -> np.ndarray:
    return np.random.default_rng(seed).random((40, 50)) < fill


def oracle(mask: np.ndarray, small: int, hole: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of integers
        kept = morphology.remove_small_objects(mask, max_size=max(small - 1, 0))
        return np.asarray(morphology.remove_small_holes(kept, max_size=hole))


@pytest.mark.parametrize("fill", [0.3, 0.5, 0.6, 0.9])
@pytest.mark.parametrize(("small", "hole"), [(0, 0), (6, 3), (25, 12), (3000, 63)])
def test_equals_scikit_image(fill: float, small: int, hole: int) -> None:
    masks = np.stack([speckled(seed, fill) for seed in range(3)])
    for is_released, given in ((False, masks), (True, masks.astype(np.int64))):
        got = clean_mask(torch.from_numpy(given)[:, None], small, hole, released=is_released)
        assert got.dtype == torch.uint8 and got.shape == (3, 1, 40, 50)
        for b in range(3):
            assert np.array_equal(got[b, 0].numpy() != 0, oracle(given[b], small, hole) != 0)


def test_a_small_blob_survives_in_the_released_form() -> None:
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    mask[..., 4:9, 4:9] = 255
    mask[..., 20:40, 20:40] = 255
    assert int(clean_mask(mask)[..., :15, :15].sum()) == 0
    assert int(clean_mask(mask, 200, released=True)[..., :15, :15].sum()) == 25
    assert int(clean_mask(mask[..., :15, :15], 200, released=True).sum()) == 0


def test_the_input_stays_and_floats_are_refused() -> None:
    mask = torch.from_numpy(speckled(0, 0.5))
    before = mask.clone()
    clean_mask(mask)
    assert torch.equal(mask, before)
    with pytest.raises(TypeError, match="bool or integers"):
        clean_mask(mask.float())
