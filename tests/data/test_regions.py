# SPDX-License-Identifier: Apache-2.0
"""Region maps of a data set: made once, by whoever shares the work, whatever kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose, RandFlipd
from tests.data.volumes import SETTINGS, draw, items, steps
from tests.guards._tree import ROOT

from fewlabel.data import precompute_regions, reading
from fewlabel.errors import ConfigError, DataError
from fewlabel.kernels import felzenszwalb as kernel
from fewlabel.transforms import AddRegionsd


def noted(folder: Path) -> list[str]:
    """Names of the images whose maps were made, once for each time."""
    file = folder / "made.txt"
    return sorted(Path(line).name for line in file.read_text().split()) if file.is_file() else []


def maps(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.labels"))


def test_training_finds_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = draw(tmp_path / "data", 3), tmp_path / "cache"
    behind = RandFlipd(["image", "regions"], 0.5)
    made = precompute_regions(items(data), Compose([*steps(cache), behind]), progress=False)
    assert (made.items, made.made) == (3, 3) and made.seconds >= 3 * made.seconds_each > 0
    assert made.peak_mb > 50 and "3 region maps made" in str(made)
    again = precompute_regions(items(data), steps(cache), progress=False)
    assert (again.items, again.made, again.seconds_each) == (3, 0, 0) and "3 were there" in str(again)
    monkeypatch.setattr(kernel, "felzenszwalb", None)
    for item in items(data):
        found = Compose([*reading(["image"]), AddRegionsd(folder=cache, **SETTINGS)])(item)["regions"]
        assert found.max() > 3 and torch.equal(found >= 0, found != -1)


def test_workers_share_the_work(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, cache = draw(tmp_path / "data", 5), tmp_path / "cache"
    made = precompute_regions(items(data), steps(cache), jobs=2)
    assert (made.items, made.made) == (5, 5)
    assert noted(cache) == [f"image_{n}.nii.gz" for n in range(5)] and len(maps(cache)) == 5
    assert "regions: 100%" in capfd.readouterr().err


def test_ranks_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = draw(tmp_path / "data", 5), tmp_path / "cache"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in (("0", 3), ("1", 2)):
        monkeypatch.setenv("RANK", rank)
        assert precompute_regions(items(data), steps(cache), progress=False).made == count
    assert noted(cache) == [f"image_{n}.nii.gz" for n in range(5)]


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
@pytest.mark.parametrize("jobs", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_goes_on_after_a_kill(tmp_path: Path, jobs: int) -> None:
    data, cache = draw(tmp_path / "data", 24, size=(64, 60, 50)), tmp_path / "cache"
    places = os.pathsep.join([str(ROOT / "common"), str(ROOT)])
    line = [sys.executable, "-m", "tests.data.volumes", str(data), str(cache), str(jobs)]
    process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": places}, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(maps(cache)) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    while (before := len(noted(cache))) and time.monotonic() < deadline:  # workers see that their parent has gone
        time.sleep(6 if jobs else 0)
        if before == len(noted(cache)):
            break
    ready = len(maps(cache))
    assert 3 <= ready < 24
    rest = precompute_regions(items(data), steps(cache), progress=False)
    assert (rest.items, rest.made) == (24, 24 - ready) and len(maps(cache)) == 24
    assert len(set(noted(cache))) == 24 and len(noted(cache)) <= 24 + max(1, jobs)  # those under way when it died


def test_bad_images_do_not_stop_the_others(tmp_path: Path) -> None:
    data, cache = draw(tmp_path / "data", 3), tmp_path / "cache"
    (data / "image_1.nii.gz").write_bytes(b"no volume")
    for jobs in (0, 2):
        with pytest.raises(DataError, match=r"image_1.nii.gz cannot be read") as caught:
            precompute_regions(items(data), steps(cache), jobs=jobs, progress=False)
        assert len(caught.value.problems) == 1
    assert len(maps(cache)) == 2 and noted(cache) == ["image_0.nii.gz", "image_2.nii.gz"]


def test_reads_images_and_labels_onto_one_grid(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", 1)
    item = {"image": str(data / "image_0.nii.gz"), "label": str(data / "label_0.nii.gz")}
    read = Compose(reading(["image", "label"], "SRA", [3.0, 1.0, 4.0]))(item)
    assert read["image"].shape == read["label"].shape
    assert [round(float(s)) for s in read["image"].pixdim] == [3, 1, 4]
    assert read["label"].unique().tolist() == [0, 1, 2]
    assert set(Compose(reading(["image", "label"]))({"image": item["image"]})) == {"image"}


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no AddRegionsd"):
        precompute_regions([], reading(["image"]), progress=False)
    wrong = [*reading(["image"]), RandFlipd("image", 0.5), AddRegionsd()]
    with pytest.raises(ConfigError, match="RandFlipd stands before AddRegionsd"):
        precompute_regions([], wrong, progress=False)
    assert precompute_regions([], steps(tmp_path), progress=False)[:2] == (0, 0)
