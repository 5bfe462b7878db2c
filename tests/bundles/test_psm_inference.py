# SPDX-License-Identifier: Apache-2.0
"""Inference of the PSM bundle: what it writes of each image, the same in one piece and in tiles."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundles.conftest import listing
from tests.bundles.nuclei import run, tile
from tests.bundles.probe import Dark
from tests.bundles.tiny import INFERENCE

SIZES = {"tile.png": (70, 90), "ward/tile.tif": (64, 64)}
KINDS = ("_instances.png", "_centroids.csv", ".geojson", "_overlay.png")
PROBE: dict[str, Any] = {"network_def": {"_target_": "tests.bundles.probe.Dark"}, "tile_overlap_px": 32}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of the same images in one piece (``small``), in one tile each (``one``) and in several (``many``)."""
    root = tmp_path_factory.mktemp("inference")
    for seed, (name, size) in enumerate(SIZES.items()):
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(seed, *size)[0]).save(root / "in" / name)
    (root / "models").mkdir()
    torch.save(Dark().state_dict(), root / "models" / "model.pt")
    for name, keys in {"small": {}, "one": {"tile_px": 128}, "many": {"tile_px": 64}}.items():
        keys = {"max_pixels": 10**6 if name == "small" else 1, "ckpt_dir": str(root / "models"), **keys}
        run(root / "in", root / name, INFERENCE, "inference", **PROBE, **keys)
    return root


def file_of(out: Path, way: str, name: str, kind: str) -> Path:
    return out / way / "predictions" / Path(name).with_name(f"{Path(name).stem}{kind}")


@pytest.mark.parametrize("way", ["small", "one", "many"])
def test_each_image_gets_its_files(out: Path, way: str) -> None:
    """Large images have a record of what made them beside."""
    kinds = KINDS if way == "small" else (*KINDS, "_instances.json")
    files = {file_of(out, way, name, kind).relative_to(out / way).as_posix() for name in SIZES for kind in kinds}
    assert listing(out / way) == files


@pytest.mark.parametrize("name", SIZES)
def test_instances_are_the_disks(out: Path, name: str) -> None:
    truth = tile(list(SIZES).index(name), *SIZES[name])[1]
    found = np.asarray(Image.open(file_of(out, "small", name, "_instances.png")))
    assert found.dtype == np.uint16 and found.shape == truth.shape and ((found > 0) == (truth > 0)).all()
    pairs = np.unique(np.stack([found[truth > 0], truth[truth > 0]]), axis=1)
    assert pairs.shape[1] == truth.max() == found.max(), "no disk touches another: one number each"
    with file_of(out, "small", name, "_centroids.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        y, x = np.nonzero(found == int(row["id"]))
        assert float(row["x_px"]) == pytest.approx(x.mean() + 0.5, abs=0.01)
        assert float(row["y_px"]) == pytest.approx(y.mean() + 0.5, abs=0.01)
        assert (int(row["area_px"]), row["class"]) == (len(y), "nucleus")
    features = json.loads(file_of(out, "small", name, ".geojson").read_text())["features"]
    assert len(features) == len(rows) == found.max()
    overlay = np.asarray(Image.open(file_of(out, "small", name, "_overlay.png")))
    assert overlay.shape == (*truth.shape, 3) and (overlay != tile(list(SIZES).index(name), *SIZES[name])[0]).any()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("way", ["one", "many"])
def test_large_images_get_what_small_ones_get(out: Path, way: str, name: str) -> None:
    """The probe looks at one pixel, so seams cannot show, and all files are equal byte by byte but the picture's."""
    for kind in KINDS[:3]:
        ours, theirs = (file_of(out, w, name, kind) for w in (way, "small"))
        if kind.endswith(".png"):
            assert (np.asarray(Image.open(ours)) == np.asarray(Image.open(theirs))).all()
        else:
            assert ours.read_bytes() == theirs.read_bytes()
