# SPDX-License-Identifier: Apache-2.0
"""Instances of an image; oracles: scikit-image's labels and area filters, SciPy's holes, counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from fewlabel.errors import ConfigError
from fewlabel.transforms import InstanceRules, InstancesFromLogitsd, instances_from_logits
from fewlabel.transforms.instance_map import find_instances
from fewlabel.transforms.instance_table import InstanceTable

SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)


def blobs(height: int, width: int, seed: int = 0, sigma: float = 2.0) -> NDArray[np.float32]:
    """Smooth probabilities."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), sigma)
    return (1 / (1 + np.exp(-noise * 4 * sigma))).astype(np.float32)


def logits_of(probability: NDArray[np.float32]) -> torch.Tensor:
    p = torch.from_numpy(probability).double().clamp(1e-6, 1 - 1e-6)
    return torch.stack([torch.zeros_like(p), p.logit()]).float()


def expected(probability: NDArray[np.float32], rules: InstanceRules) -> NDArray[np.int64]:
    """The rules one after another on the whole image."""
    mask = probability > rules.threshold
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    for n in range(1, count + 1):
        if rules.max_hole_px is None or (holes == n).sum() <= rules.max_hole_px:
            mask |= holes == n
    labels = measure.label(mask, connectivity=2)
    kept = [n for n in range(1, labels.max() + 1) if (labels == n).sum() >= rules.min_object_px]
    out = np.zeros_like(labels)
    for number, n in enumerate(kept, 1):
        out[labels == n] = number
    return out


@SETTINGS
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 50)),
    seed=st.integers(0, 10**6),
    sigma=st.sampled_from([0.6, 1.0, 2.0]),
    least=st.integers(0, 20),
    hole=st.sampled_from([0, 1, 5, 64, None]),
    strip_px=st.integers(1, 500),
)
def test_equal_to_rules_applied_one_after_another_in_strips_of_any_height(
    size: tuple[int, int], seed: int, sigma: float, least: int, hole: int | None, strip_px: int
) -> None:
    probability = blobs(*size, seed, sigma)
    rules = InstanceRules(threshold=0.45, min_object_px=least, max_hole_px=hole)
    labels = np.full(size, 7, np.int32)
    table = find_instances(probability, labels, rules, strip_px=strip_px)
    want = expected(probability, rules)
    np.testing.assert_array_equal(labels, want)
    regions = measure.regionprops(want, probability)
    assert table.area.tolist() == [int(r.area) for r in regions]
    assert table.boxes.tolist() == [list(r.bbox) for r in regions]
    centers = np.array([r.centroid for r in regions]).reshape(-1, 2)[:, ::-1] + 0.5
    np.testing.assert_allclose(table.centroids, centers)
    np.testing.assert_allclose(table.probability, [r.intensity_mean for r in regions], rtol=1e-5)


@pytest.mark.parametrize("split", ["watershed", "peaks"])
def test_split_does_not_depend_on_strips_nor_on_neighbors(split: str) -> None:
    probability = blobs(150, 190, seed=3, sigma=4.0)
    rules = InstanceRules(split=split, min_object_px=10)
    whole, strips = (np.zeros(probability.shape, np.int32) for _ in range(2))
    count = find_instances(probability, whole, rules).count
    find_instances(probability, strips, rules, strip_px=700)
    np.testing.assert_array_equal(whole, strips)
    merged = np.zeros(probability.shape, np.int32)
    assert count > find_instances(probability, merged, InstanceRules(min_object_px=10)).count
    assert bool((merged[whole > 0] > 0).all())
    firsts = [int(np.argmax(whole.ravel() == n)) for n in range(1, count + 1)]
    assert firsts == sorted(firsts) and set(np.unique(whole)) == set(range(count + 1))
    alone = np.where(merged == merged[whole == count][0], probability, 0).astype(np.float32)  # its own component only
    again = np.zeros_like(whole)
    find_instances(alone, again, rules)
    ours = whole == count
    assert bool((again[ours] == again[ours][0]).all()) and int((again == again[ours][0]).sum()) == int(ours.sum())


def discs(*centers: tuple[int, int], radius: float = 8) -> NDArray[np.float32]:
    y, x = np.mgrid[:40, :60]
    hit = [(y - cy) ** 2 + (x - cx) ** 2 <= radius**2 for cy, cx in centers]
    return np.where(np.any(hit, 0), 0.9, 0.1).astype(np.float32)


@pytest.mark.parametrize("split", ["watershed", "peaks"])
def test_touching_discs_are_two_and_a_bar_is_one(split: str) -> None:
    probability = discs((20, 15), (20, 28))
    if split == "peaks":
        probability *= np.where(np.abs(np.arange(60) - 21.5) < 2, 0.6, 1).astype(np.float32)
        probability = np.where(discs((20, 15), (20, 28)) > 0.5, probability.clip(0.51), probability)
    found = instances_from_logits(logits_of(probability), InstanceRules(split=split))
    assert int(found.labels.max()) == 2
    assert found.labels[0, 20, 10] == 1 and found.labels[0, 20, 33] == 2
    assert int(instances_from_logits(logits_of(probability)).labels.max()) == 1
    bar = np.full((40, 60), 0.1, np.float32)
    bar[15:23, 4:56] = 0.9
    assert int(instances_from_logits(logits_of(bar), InstanceRules(split=split)).labels.max()) == 1
    full = np.full((20, 20), 0.9, np.float32)
    assert bool((instances_from_logits(logits_of(full), InstanceRules(split=split)).labels == 1).all())


def test_large_clumps_are_left_whole() -> None:
    rules = InstanceRules(split="watershed", max_split_px=100)
    assert int(instances_from_logits(logits_of(discs((20, 15), (20, 28))), rules).labels.max()) == 1


def test_class_of_most_pixels() -> None:
    logits = torch.full((3, 4, 12), -4.0)
    logits[0] = 0
    logits[1, :, :3], logits[2, :, 3:5] = 3.0, 4.0  # 12 pixels of class 1 against 8 of class 2, one component
    logits[2, 1:3, 8:11] = 2.0
    found = instances_from_logits(logits, InstanceRules(min_object_px=1))
    assert found.kinds.tolist() == [1, 2] and found.labels.dtype == torch.int32
    p = logits.softmax(0)
    mean = 1 - p[0][found.labels[0] == 1].mean()
    torch.testing.assert_close(found.probability[0], mean)
    same = instances_from_logits(p, InstanceRules(min_object_px=1), softmax=False)
    assert torch.equal(same.labels, found.labels)


def test_dictionary_numbers_along_rows_of_the_picture_in_both_axes() -> None:
    logits = logits_of(blobs(30, 50, seed=1))
    want = instances_from_logits(logits)
    upright = InstancesFromLogitsd("pred")({"pred": MetaTensor(logits, meta={"filename_or_obj": "a.png"})})
    lying = InstancesFromLogitsd("pred", axes="WH")({"pred": logits.mT.contiguous()})
    assert upright["pred"].meta["filename_or_obj"] == "a.png" and upright["pred"].dtype == torch.int32
    assert torch.equal(upright["pred"].as_tensor(), want.labels) and int(want.labels.max()) > 3
    assert torch.equal(lying["pred"], want.labels.mT)
    assert torch.equal(lying["pred_kinds"], want.kinds) and torch.equal(lying["pred_probability"], want.probability)


def test_nothing_and_no_instances() -> None:
    found = instances_from_logits(torch.stack([torch.ones(5, 6), torch.zeros(5, 6)]))
    assert not found.labels.any() and found.kinds.shape == found.probability.shape == (0,)
    assert InstanceTable(0).centroids.shape == (0, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold", 1.0), ("min_object_px", -1), ("max_hole_px", -1), ("split", "cut"), ("split_depth", 0.0)],
)
def test_wrong_rules_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected .* received {value!r}"):
        InstanceRules(**{key: value})  # type: ignore[arg-type]


def test_wrong_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(K, H, W\)"):
        instances_from_logits(torch.zeros(2, 2, 4, 4))
    with pytest.raises(ValueError, match="2 to 256 classes"):
        instances_from_logits(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        instances_from_logits(torch.full((2, 4, 4), 3.0), softmax=False)
    with pytest.raises(ValueError, match="'WH' or 'HW'"):
        InstancesFromLogitsd("pred", axes="XY")
