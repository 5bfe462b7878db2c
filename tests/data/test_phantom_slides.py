# SPDX-License-Identifier: Apache-2.0
"""Drawn tissue: exact instances and classes, stains that mix by absorption, nuclei neither given away nor hidden."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from fewlabel.data import find_labels, read_datalist, without_labels
from fewlabel.data.folds import hold_out_groups
from fewlabel.data.phantoms import PHANTOMS, histology, immunohistochemistry
from fewlabel.data.phantoms._nuclei import KINDS, Crowd, Nucleus
from fewlabel.data.phantoms._section import PATTERNS
from fewlabel.data.phantoms._stain import EOSIN, HEMATOXYLIN, Scan, scan
from fewlabel.data.phantoms.histology import HistologySlide
from fewlabel.data.phantoms.immunohistochemistry import ImmunohistochemistrySlide
from fewlabel.errors import ConfigError

SMALL = {"slides": (2, 1, 1), "tiles": 2, "size": (96, 128)}
Tiles = list[tuple[np.ndarray, ...]]


@pytest.fixture(scope="module")
def stained() -> Tiles:
    return [HistologySlide((1, k), name, (176, 176)).tile(0) for k, name in enumerate([*PATTERNS, *PATTERNS])]


@pytest.fixture(scope="module")
def marked() -> Tiles:
    return [ImmunohistochemistrySlide((1, k), "carcinoma", (176, 176)).tile(0) for k in range(6)]


@pytest.fixture(params=[histology, immunohistochemistry], ids=["histology", "immunohistochemistry"])
def drawer(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def pixel_f1(pred: np.ndarray, truth: np.ndarray) -> float:
    return 2 * int((pred & truth).sum()) / int(pred.sum() + truth.sum())


@pytest.mark.parametrize("slide", [HistologySlide, ImmunohistochemistrySlide])
def test_tiles_depend_on_seed_slide_and_tile_alone(slide: type[HistologySlide | ImmunohistochemistrySlide]) -> None:
    first = slide((0, 3), size=(60, 84))
    first.tile(0)
    np.random.seed(0)  # noqa: NPY002
    for a, b in zip(first.tile(1), slide((0, 3), size=(60, 84)).tile(1), strict=True):
        assert np.array_equal(a, b) and a.shape[:2] == (60, 84)
    assert not np.array_equal(first.tile(1)[0], first.tile(0)[0])
    assert not np.array_equal(first.tile(1)[0], slide((1, 3), size=(60, 84)).tile(1)[0])


def test_every_nucleus_is_there_in_one_piece(stained: Tiles, marked: Tiles) -> None:
    for image, label, *_ in [*stained, *marked]:
        assert (image.dtype, label.dtype) == (np.uint8, np.uint16) and image.shape == (*label.shape, 3)
        values, areas = np.unique(label[label > 0], return_counts=True)
        assert values.tolist() == list(range(1, len(values) + 1)) and len(values) >= 15
        assert areas.min() >= 20
        for value, box in enumerate(ndimage.find_objects(label), 1):
            assert ndimage.label(label[box] == value, np.ones((3, 3)))[1] == 1


def test_no_nucleus_is_cut_in_two_by_another() -> None:
    rng = np.random.default_rng(0)
    crowd = Crowd.empty(rng, (40, 80), 10.0)
    bar, across, corner = (np.zeros((40, 80), bool) for _ in range(3))
    bar[15:25, 5:75], across[10:30, 38:41], corner[10:18, 60:79] = True, True, True
    whole = (slice(0, 40), slice(0, 80))
    crowd.add(rng, Nucleus(whole, bar, bar.astype(np.float32)), KINDS["spindle"], 10.0)
    assert not crowd.fits(Nucleus(whole, across, across.astype(np.float32)), 1.0)
    assert crowd.fits(Nucleus(whole, corner, corner.astype(np.float32)), 0.4)
    assert not crowd.fits(Nucleus(whole, corner, corner.astype(np.float32)), 0.2), "a third of the corner lies on it"


def test_some_nuclei_touch(stained: Tiles) -> None:
    for _, label in stained:
        components = ndimage.label(label > 0, np.ones((3, 3)))[1]
        assert components < label.max()


def test_labels_are_exactly_where_nuclei_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tile with nuclei of no substance differs inside the labels and along their soft outline alone."""
    slide = HistologySlide((2, 0), "stroma", (128, 128))
    object.__setattr__(slide.scan, "blur_px", 0.2)
    image, label = slide.tile(0)
    populate = histology.populate

    def ghosts(*args: object) -> object:
        crowd = populate(*args)
        crowd.density[:], crowd.cover[:] = 0, 0
        return crowd

    monkeypatch.setattr(histology, "populate", ghosts)
    empty, same = slide.tile(0)
    assert np.array_equal(label, same)
    changed = np.abs(image.astype(int) - empty).max(-1) > 4
    core, reach = ndimage.binary_erosion(label > 0), ndimage.binary_dilation(label > 0, iterations=2)
    assert changed[core].mean() > 0.97 and not changed[~reach].any()


def test_stains_mix_as_absorbing_dyes() -> None:
    vectors = np.array([HEMATOXYLIN, EOSIN], np.float32)
    slide = Scan(vectors, np.array([1.0, 2.0], np.float32), np.ones(3, np.float32), 0.3, 0.0)
    pixels = scan(np.full((9, 9, 2), (0.5, 0.25), np.float32), slide, np.random.default_rng(0))
    expected = 255 * np.exp(-0.5 * np.array(HEMATOXYLIN)) * np.exp(-0.5 * np.array(EOSIN))
    assert np.abs(pixels[4, 4] - expected).max() <= 0.51


def test_otsu_on_hematoxylin_finds_many_nuclei_and_not_all(stained: Tiles) -> None:
    scores = []
    for image, label in stained:
        hematoxylin = rgb2hed(image)[..., 0]
        scores.append(pixel_f1(hematoxylin > threshold_otsu(hematoxylin), label > 0))
    assert min(scores) > 0.5 and max(scores) < 0.9 and 0.6 < np.mean(scores) < 0.85


def test_slides_are_stained_differently() -> None:
    colors = np.array([HistologySlide((0, k), "stroma", (96, 96)).tile(0)[0].mean((0, 1)) for k in range(8)])
    assert colors.std(0).min() > 4


def test_classes_follow_the_nuclei(marked: Tiles) -> None:
    shares = []
    for _, label, classes in marked:
        assert classes.dtype == np.uint8 and np.array_equal(classes > 0, label > 0)
        pairs = np.unique(np.stack([label[label > 0], classes[label > 0]]), axis=1)
        assert pairs.shape[1] == label.max() and set(pairs[1]) <= {1, 2}
        shares.append((pairs[1] == 1).mean())
    assert min(shares) < 0.35 and max(shares) > 0.5


def test_positive_nuclei_are_brown_and_negative_ones_blue(marked: Tiles) -> None:
    for image, label, classes in marked:
        warmth = image[..., 0].astype(float) - image[..., 2]
        means = ndimage.mean(warmth, label, np.arange(1, int(label.max()) + 1))
        kind = ndimage.maximum(classes, label, np.arange(1, int(label.max()) + 1))
        if len(set(kind)) == 2:
            assert means[kind == 1].mean() > 15 > 0 > means[kind == 2].mean() - 10


def test_data_set_keeps_slides_in_one_list_and_reads_back(tmp_path: Path, drawer: ModuleType) -> None:
    folder = drawer.write_dataset(tmp_path / "set", **SMALL)
    lists = read_datalist(folder)
    parts = (lists.training, lists.validation, lists.test)
    assert [len(part) for part in parts] == [4, 2, 2]
    fold = hold_out_groups(lists, ["slide00"], "group")
    assert len(fold.validation) == 2 and "slide00" not in {item["group"] for item in fold.training}
    groups = [{item["group"] for item in part} for part in parts]
    assert [len(g) for g in groups] == [2, 1, 1] and len(set.union(*groups)) == 4
    for item in [item for part in parts for item in part]:
        image, label = np.asarray(Image.open(item["image"])), np.asarray(Image.open(item["label"]))
        assert image.shape == (96, 128, 3) and label.shape == (96, 128) and label.dtype == np.uint16
        if drawer is immunohistochemistry:
            classes = np.asarray(Image.open(item["class_label"]))
            assert classes.dtype == np.uint8 and np.array_equal(classes > 0, label > 0)
        bare = without_labels(item)
        assert set(bare) == {"image", "group"} and not find_labels([bare])


def test_a_complete_set_is_left_alone_and_a_damaged_one_drawn_again(tmp_path: Path, drawer: ModuleType) -> None:
    folder = drawer.write_dataset(tmp_path / "set", **SMALL)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.png")}
    drawer.write_dataset(folder, **SMALL)
    assert all(p.stat().st_mtime_ns == stamp for p, (_, stamp) in before.items())
    sorted(folder.rglob("*.png"))[0].unlink()  # of the last map in the item, where there is a class map
    drawer.write_dataset(folder, **SMALL)
    assert {p: p.read_bytes() for p in folder.rglob("*.png")} == {p: raw for p, (raw, _) in before.items()}
    with pytest.raises(ConfigError, match="holds something else"):
        drawer.write_dataset(folder, **SMALL, seed=1)


def test_sets_are_registered_with_their_sizes(drawer: ModuleType) -> None:
    assert drawer.__name__ in PHANTOMS.values()
    assert json.loads(json.dumps(drawer._HEADER))["labels"]["0"] == "background"
    assert drawer.write_dataset.__defaults__[:2] == ((8, 2, 2), 3) and drawer.SIZE == (256, 256)
