# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed
from tests.pseudolabels.tiles import CENTERS, DAB, HEMATOXYLIN, disks, overlap, stained, tissue
from torch import Tensor, nn

from fewlabel.pseudolabels import (
    ClusterSegmenter,
    OtsuSegmenter,
    StainSegmenter,
    clean_mask,
    optical_density,
    otsu_mask,
    otsu_watershed,
    self_activation_map,
    semantic_clusters,
    stain_densities,
)


class Scorer(nn.Module):
    """Images to one score, and the name of its shallow layer."""

    shallow_layers = ("body.1",)

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head, self.sign = nn.Linear(6, 1), sign

    def forward(self, images: Tensor) -> Tensor:
        return self.sign * self.head(self.body(images).flatten(1))


def test_otsu_finds_nuclei() -> None:
    image, nuclei = tissue()
    logits = OtsuSegmenter()(image)
    assert logits.shape == (1, 2, 56, 64)
    assert overlap(logits.argmax(1)[0], nuclei) > 0.95
    density = stain_densities(image)[0, 0].numpy()
    raw = otsu_mask(image, min_object_px=0, max_hole_px=0)[0, 0].numpy()
    assert np.array_equal(raw == 1, density > threshold_otsu(density))
    assert not otsu_mask(torch.full((1, 3, 8, 8), 0.5)).any()


def test_watershed_parts_touching_nuclei() -> None:
    pair = disks(((20, 20), (20, 33)), radius=8)
    image = stained((0.8 * pair, (0.650, 0.704, 0.286)), noise=0)
    labels = otsu_watershed(image)
    assert labels.dtype == torch.int32 and labels.shape == (1, 1, 56, 64)
    assert int(labels.max()) == 2 and torch.equal(labels[0, 0] > 0, pair)
    assert labels[0, 0, 20, 20] != labels[0, 0, 20, 33]
    distance = distance_transform_edt(pair.numpy())
    tops = peak_local_max(distance, min_distance=6, labels=pair.int().numpy(), exclude_border=False)
    markers = np.zeros(pair.shape, int)
    markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    assert np.array_equal(labels[0, 0].numpy(), watershed(-distance, markers, mask=pair.numpy()))
    assert not otsu_watershed(torch.full((2, 3, 8, 8), 0.5)).any()


def test_clusters_of_colors() -> None:
    image, nuclei = tissue()
    segmenter = ClusterSegmenter()
    assert segmenter.maps(image) is None and not segmenter.state_dict()
    logits = segmenter(image)
    assert torch.equal(logits.argmax(1, keepdim=True), clean_mask(semantic_clusters(image)).long())
    assert overlap(logits.argmax(1)[0], nuclei) > 0.95
    assert float(logits.softmax(1).amax(1).min()) > 0.999


def test_clusters_with_a_network() -> None:
    image, nuclei = tissue()
    network = Scorer()
    segmenter = ClusterSegmenter(network, margin_px=8)
    guide = optical_density(image).mean(1, keepdim=True)
    with torch.inference_mode():
        maps = segmenter.maps(image)
        mask = segmenter.mask(image)
    expected = self_activation_map(network, image, ["body.1"], 0, "minmax_then_mean", guide, 8)
    assert maps is not None and torch.equal(maps, expected)
    assert torch.equal(mask, clean_mask(semantic_clusters(image, expected)))
    assert overlap(mask[0, 0], nuclei) > 0.9
    assert list(segmenter.state_dict()) == [f"score_network.{name}" for name in network.state_dict()]


@pytest.mark.parametrize("toward", ["density", "hematoxylin"])
def test_the_sign_of_the_score_counts_only_without_a_rule(toward: str) -> None:
    image, _ = tissue()
    fixed, free = ([ClusterSegmenter(Scorer(s), toward=t).maps(image) for s in (1, -1)] for t in (toward, None))
    torch.testing.assert_close(*fixed)
    torch.testing.assert_close(free[0], 1 - free[1])


def test_the_released_pseudo_mask() -> None:
    image, _ = tissue()
    network = Scorer()
    options = {"beta": 1.0, "rule": "released", "features": "released"}
    segmenter = ClusterSegmenter(
        network, toward=None, margin_px=0, min_object_px=200, released_cleaning=True, **options
    )
    maps = self_activation_map(network, image, ["body.1"], order="minmax_then_mean")
    assert torch.equal(segmenter.mask(image), clean_mask(semantic_clusters(image, maps, **options), 200, released=True))


def test_a_network_must_name_its_layers() -> None:
    with pytest.raises(ValueError, match="Sequential has no shallow_layers"):
        ClusterSegmenter(nn.Sequential(nn.Linear(1, 1)))
    assert ClusterSegmenter(Scorer(), layers=["body.0"]).layers == ["body.0"]
    with pytest.raises(ValueError, match=r"RGB images \(B, 3, H, W\)"):
        OtsuSegmenter()(torch.zeros(3, 8, 8))


@pytest.mark.parametrize(
    "segmenter", [OtsuSegmenter(), ClusterSegmenter(), StainSegmenter()], ids=lambda s: type(s).__name__
)
def test_logits_keep_the_record_of_transforms(segmenter: nn.Module) -> None:
    """Without it ``Invertd`` warns and leaves the prediction as it is: transposed, which square tiles hide."""
    image = MetaTensor(tissue()[0], applied_operations=[{"class": "Transpose"}])
    logits = segmenter(image)
    assert isinstance(logits, MetaTensor) and logits.applied_operations == image.applied_operations
    assert torch.equal(logits.as_subclass(Tensor), segmenter(image.as_subclass(Tensor)))


def test_stains_make_two_classes() -> None:
    brown, blue = disks(CENTERS[:2]), disks(CENTERS[2:])
    image = stained((0.8 * brown, DAB), (0.6 * blue, HEMATOXYLIN))
    segmenter = StainSegmenter()
    logits = segmenter(image)
    assert logits.shape == (1, 3, 56, 64) and torch.equal(logits.argmax(1, keepdim=True), segmenter.mask(image))
    for value, truth in ((1, brown), (2, blue)):
        assert overlap(segmenter.mask(image)[0, 0] == value, truth) > 0.9
