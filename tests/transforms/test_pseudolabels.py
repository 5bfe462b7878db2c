# SPDX-License-Identifier: Apache-2.0
"""Dictionary transforms of pseudo labels: what the functions return, key by key, with metadata."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from tests.pseudolabels.test_segmenters import Scorer
from tests.pseudolabels.tiles import tissue
from torch import Tensor

from fewlabel import pseudolabels
from fewlabel.transforms import (
    CleanMaskd,
    OpticalDensityd,
    OtsuWatershedd,
    Peaksd,
    SelfActivationMapd,
    SemanticClustersd,
    StainClassesd,
    StainDensitiesd,
    VoronoiTargetsd,
)


def tile() -> MetaTensor:
    return MetaTensor(tissue()[0][0], meta={"filename_or_obj": "a.png"})


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (OpticalDensityd("image", "out"), lambda x: pseudolabels.optical_density(x)),
        (StainDensitiesd("image", "out", vectors="ruifrok"), lambda x: pseudolabels.stain_densities(x, "ruifrok")),
        (OtsuWatershedd("image", "out", min_object_px=20), lambda x: pseudolabels.otsu_watershed(x, 20)),
        (SemanticClustersd("image", "out", clusters=2), lambda x: pseudolabels.semantic_clusters(x, clusters=2)),
        (StainClassesd("image", "out", min_gap=-1), lambda x: pseudolabels.stain_classes(x, min_gap=-1)),
    ],
)
def test_equals_the_function(transform: Compose, expected: object) -> None:
    image = tile()
    out = transform({"image": image})
    assert callable(expected)
    assert torch.equal(out["out"].as_tensor(), expected(tissue()[0])[0])
    assert out["out"].meta["filename_or_obj"] == "a.png" and out["image"] is image


def test_from_map_to_voronoi_label() -> None:
    network = Scorer()
    chain = Compose(
        [
            SelfActivationMapd("image", network, output_keys="map", margin_px=8),
            SemanticClustersd("image", "mask", map_key="map"),
            CleanMaskd("mask", min_object_px=50),
            Peaksd("score", "points", merge_px=10),
            VoronoiTargetsd("points", image_key="image", output_keys="voronoi", seed_radius_px=3),
        ]
    )
    image, nuclei = tissue()
    out = chain({"image": tile(), "score": nuclei[None].float()})
    maps = pseudolabels.ClusterSegmenter(network, margin_px=8).maps(image)
    assert isinstance(maps, Tensor)
    mask = pseudolabels.clean_mask(pseudolabels.semantic_clusters(image, maps), 50)[0]
    points = pseudolabels.peaks(nuclei[None, None].float(), merge_px=10)[0]
    assert torch.equal(out["map"].as_tensor(), maps[0]) and torch.equal(out["mask"].as_tensor(), mask)
    assert torch.equal(out["points"], points) and len(points) == 4
    assert torch.equal(out["voronoi"].as_tensor(), pseudolabels.voronoi_targets(points, (56, 64), 3))
    assert out["voronoi"].meta["filename_or_obj"] == "a.png"


def test_overwriting_and_missing_keys() -> None:
    out = CleanMaskd(["mask", "absent"], allow_missing_keys=True)({"mask": torch.ones(1, 20, 20)[..., :].int()})
    assert out["mask"].dtype == torch.uint8 and list(out) == ["mask"]
    with pytest.raises(KeyError, match="absent"):
        CleanMaskd("absent")({})


def test_mistakes_are_found_at_construction() -> None:
    with pytest.raises(ValueError, match="expected 2 output_keys"):
        CleanMaskd(["a", "b"], "c")
    with pytest.raises(TypeError, match="unexpected keyword argument 'min_size'"):
        CleanMaskd("mask", min_size=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'bata'"):
        SemanticClustersd("image", bata=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'layer'"):
        SelfActivationMapd("image", Scorer(), layer="body")
