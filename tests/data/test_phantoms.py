# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hsv

from fewlabel.data import phantoms, read_datalist
from fewlabel.data.phantoms import endoscopy
from fewlabel.data.phantoms.endoscopy import EndoscopyVideo, endoscopy_frame, write_dataset
from fewlabel.errors import ConfigError

SMALL = {"videos": (2, 1, 1), "frames": (3, 2, 2), "size": (48, 64)}


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return [EndoscopyVideo((0, video), (120, 160)).frame(frame) for video in range(20) for frame in (0, 9)]


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a drawer of few and small frames stand in the registry."""
    drawer = ModuleType("small_drawer")
    drawer.VERSION = "7"
    drawer.write_dataset = lambda folder, seed: write_dataset(folder, **SMALL, seed=seed)
    monkeypatch.setitem(sys.modules, "small_drawer", drawer)
    monkeypatch.setattr(phantoms, "PHANTOMS", {"endoscopy": "small_drawer"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    total = int(pred.sum() + truth.sum())
    return 1.0 if total == 0 else 2 * int((pred & truth).sum()) / total


def test_frames_have_the_promised_form_and_depend_on_the_seed_alone() -> None:
    image, mask = endoscopy_frame(2, seed=1, size=(60, 84))
    assert image.shape == (60, 84, 3) and image.dtype == np.uint8
    assert mask.shape == (60, 84) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2}
    np.random.seed(0)  # noqa: NPY002
    again, _ = endoscopy_frame(2, seed=1, size=(60, 84))
    assert np.array_equal(image, again)
    assert not np.array_equal(image, endoscopy_frame(3, seed=1, size=(60, 84))[0])
    assert not np.array_equal(image, endoscopy_frame(2, seed=2, size=(60, 84))[0])


def test_a_frame_does_not_depend_on_which_were_drawn_before() -> None:
    video = EndoscopyVideo((0, 3), (60, 80))
    video.frame(0)
    late = video.frame(5)
    alone = EndoscopyVideo((0, 3), (60, 80)).frame(5)
    assert np.array_equal(late[0], alone[0]) and np.array_equal(late[1], alone[1])


def test_tools_reach_in_from_the_border_and_both_parts_occur(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    shares = np.array([[(mask == k).mean() for k in (1, 2)] for _, mask in frames])
    assert 0.03 < shares[:, 0].mean() < 0.2 and 0.005 < shares[:, 1].mean() < 0.06
    assert 0 < sum(not mask.any() for _, mask in frames) < len(frames) / 3
    for _, mask in frames:
        for part in range(1, ndimage.label(mask == 1)[1] + 1):
            region = ndimage.label(mask == 1)[0] == part
            touches = region[[0, -1]].any() or region[:, [0, -1]].any()
            # a shaft that does not reach the border is cut off by the tip of another tool or by the scope's round edge
            grown = ndimage.binary_dilation(region, iterations=2)
            assert touches or (mask[grown] == 2).any() or region.sum() < 30


def test_neighboring_frames_of_a_video_differ_little() -> None:
    near, far = [], []
    for number in range(8):
        video = EndoscopyVideo((0, number), (60, 80))
        masks = [video.frame(k)[1] > 0 for k in (0, 1, 2, 12)]
        near += [dice(a, b) for a, b in itertools.pairwise(masks[:3]) if a.any()]
        far += [dice(masks[0], masks[3])]
    assert np.median(near) > 0.75 and np.median(near) > np.median(far) + 0.1
    assert any(score < 1 for score in near)


def test_tools_do_not_depend_on_the_size_of_the_frame() -> None:
    small, large = (EndoscopyVideo((0, 1), size).frame(2)[1] > 0 for size in ((60, 80), (240, 320)))
    assert large.any()
    assert dice(np.kron(small, np.ones((4, 4), bool)), large) > 0.9


def test_mask_is_exactly_where_the_tools_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shadow, bloom and motion blur, a frame with tools differs from one without inside the mask alone."""
    monkeypatch.setattr(endoscopy, "cast_shadow", lambda scene, *_: scene)
    monkeypatch.setattr(endoscopy, "lens", lambda scene, *_: scene)
    seen = 0
    for number in range(6):
        video = EndoscopyVideo((5, number), (120, 160))
        video.shaky = False
        image, mask = video.frame(0)
        video.tools = []
        empty, nothing = video.frame(0)
        changed, tool = (image.astype(int) - empty != 0).any(-1), mask > 0
        stray = changed & ~ndimage.binary_dilation(tool)  # edges are smoothed, and tips end thinner than a pixel
        assert not nothing.any() and stray.sum() < 0.003 * tool.sum()
        seen += int(tool.sum())
        assert changed[tool].mean() > 0.95
    assert seen > 2000


def test_no_threshold_of_gray_or_color_finds_the_tools(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    def redness(x: np.ndarray) -> np.ndarray:
        return (2.0 * x[..., 0] - x[..., 1] - x[..., 2]) / (x.sum(-1) + 25.0)

    truths = [mask > 0 for _, mask in frames]
    for feature in (lambda x: x.mean(-1) / 255, lambda x: rgb2hsv(x)[..., 1], redness):
        values = [feature(image) for image, _ in frames]
        for sign in (1, -1):
            scores = [
                np.mean([dice(sign * v < t, y) for v, y in zip(values, truths, strict=True)])
                for t in np.linspace(-1, 1, 41)
            ]
            assert max(scores) < 0.55


def test_data_set_has_disjoint_videos_and_readable_files(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", **SMALL)
    content = json.loads((folder / "datalist.json").read_text())
    assert [len(content[k]) for k in ("training", "validation", "test")] == [6, 2, 2]
    groups = [{item["video"] for item in content[k]} for k in ("training", "validation", "test")]
    assert [len(g) for g in groups] == [2, 1, 1] and len(set.union(*groups)) == 4
    for item in [i for k in ("training", "validation", "test") for i in content[k]]:
        image, label = Image.open(folder / item["image"]), Image.open(folder / item["label"])
        assert (image.mode, label.mode, image.size, label.size) == ("RGB", "L", (64, 48), (64, 48))
    assert len(list(folder.rglob("*.png"))) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.usefixtures("small_set", "cache")
def test_data_list_is_read_by_the_package() -> None:
    lists = read_datalist()
    assert (len(lists.training), len(lists.validation), len(lists.test)) == (6, 2, 2)
    assert Path(lists.training[0]["image"]).is_file() and lists.training[0]["video"] == "video00"


def test_a_complete_folder_is_left_alone_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", **SMALL)
    first = {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.png")}
    write_dataset(folder, **SMALL)
    assert all((folder / p).stat().st_mtime_ns == first[p][1] for p in first)
    next(folder.rglob("*.png")).unlink()
    write_dataset(folder, **SMALL)
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.png")} == {
        p: b for p, (b, _) in first.items()
    }
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_other_content_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="mine' holds something else"):
        write_dataset(tmp_path / "mine", **SMALL)
    folder = write_dataset(tmp_path / "set", **SMALL)
    with pytest.raises(ConfigError, match="holds something else"):
        write_dataset(folder, **SMALL, seed=1)
    (tmp_path / "empty").mkdir()
    assert (write_dataset(tmp_path / "empty", **SMALL) / "datalist.json").is_file()
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_several_processes_may_ask_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.starmap(_write, [(tmp_path / "set",)] * 4)
    assert set(folders) == {tmp_path / "set"} and len(list((tmp_path / "set").rglob("*.png"))) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def _write(folder: Path) -> Path:
    return write_dataset(folder, **SMALL)


@pytest.mark.usefixtures("small_set")
def test_folder_lies_in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = phantoms.folder("endoscopy", seed=3)
    assert folder == cache / "phantoms" / "endoscopy-7-seed3"
    assert json.loads((folder / "datalist.json").read_text())["phantom"]["seed"] == 3
    monkeypatch.delenv("FEWLABEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert phantoms.folder().is_relative_to(tmp_path / "xdg")


def test_unknown_names_and_unwritable_caches_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'nuclei' is unknown: choose one of .*endoscopy"):
        phantoms.folder("nuclei")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWLABEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set FEWLABEL_CACHE"):
        phantoms.folder()


def test_registered_sets_can_be_drawn() -> None:
    for name in phantoms.PHANTOMS.values():
        module = importlib.import_module(name)
        assert callable(module.write_dataset) and module.VERSION.isalnum()
