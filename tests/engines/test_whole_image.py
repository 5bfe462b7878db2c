# SPDX-License-Identifier: Apache-2.0
"""Whole images in tiles; oracle: the same network and rules on the untiled image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensity
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from fewlabel.data import ImageRegions
from fewlabel.engines import WholeImageSegmenter
from fewlabel.engines.disk_array import DiskArray
from fewlabel.engines.tiling import tiles
from fewlabel.errors import ConfigError, DataError
from fewlabel.transforms import InstanceFiles, InstanceRules, InstancesFromLogitsd, SaveInstancesd

ENDINGS = (".geojson", "_centroids.csv", "_instances.json", "_instances.png", "_overlay.png")


class Blurry(nn.Module):
    """Fully convolutional, with one reduction by two; the receptive field is 30 pixels."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(3, 1, 5, padding=2, bias=False)
        nn.init.constant_(self.smooth.weight, 1 / 75)
        self.scale = nn.Parameter(torch.linspace(9.0, 7.0, classes - 1).view(-1, 1, 1))
        self.calls: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Bright is background, dark is nucleus; of two classes the second is darker still."""
        self.calls.append(tuple(x.shape))
        coarse = nn.functional.max_pool2d(self.smooth(x), 2, ceil_mode=True)
        fine = self.smooth(coarse.expand(-1, 3, -1, -1)).repeat_interleave(2, 2).repeat_interleave(2, 3)
        score = self.smooth(fine[..., : x.shape[2], : x.shape[3]].expand(-1, 3, -1, -1))
        shift = torch.arange(len(self.scale), dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return torch.cat([torch.zeros_like(score), -self.scale * (score * 3 + 0.15 + 0.4 * shift)], 1)


def slide(path: Path, height: int = 150, width: int = 210, seed: int = 0) -> Path:
    """Dark blobs of all sizes, and one long one across every seam."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 4)
    noise /= noise.std()
    y, x = np.mgrid[:height, :width]
    noise[abs(y - height * (0.3 + 0.4 * x / width)) < 7] = -2
    values = np.clip(128 + 80 * noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([values, values, values // 2 + 100], -1)).save(path)
    return path


def segmenter(network: nn.Module, folder: Path, **options: Any) -> WholeImageSegmenter:
    usual: dict[str, Any] = {"tile_px": 64, "overlap_px": 32, "align_px": 2, "batch_size": 3, "progress": False}
    usual["normalize"] = NormalizeIntensity(subtrahend=[0.5] * 3, divisor=[0.5] * 3, channel_wise=True)
    return WholeImageSegmenter(network, folder, **(usual | options))


def untiled(network: nn.Module, path: Path, folder: Path, rules: InstanceRules, files: InstanceFiles) -> None:
    """The way of small images: one forward pass, then the transforms."""
    with ImageRegions(path) as image, torch.inference_mode():
        scores = network((image.read(slice(0, image.shape[0]), slice(0, image.shape[1])) - 0.5)[None] / 0.5)[0]
    item = {"pred": MetaTensor(scores, meta={"filename_or_obj": str(path)})}
    SaveInstancesd("pred", folder, files, axes="HW")(InstancesFromLogitsd("pred", rules)(item))


def labels_of(folder: Path, name: str = "slide") -> NDArray[np.int64]:
    return np.asarray(Image.open(folder / f"{name}_instances.png")).astype(np.int64)


@pytest.mark.parametrize("split", ["none", "watershed", "peaks"])
@pytest.mark.parametrize("classes", [2, 3])
def test_files_are_those_of_the_untiled_image(tmp_path: Path, split: str, classes: int) -> None:
    path = slide(tmp_path / "slide.png")
    network = Blurry(classes)
    rules = InstanceRules(split=split, min_object_px=25, max_hole_px=40)
    files = InstanceFiles(class_names=("background", "pale", "dark"))
    (record,) = segmenter(network, tmp_path / "tiled", rules=rules, files=files).run([{"image": str(path)}])
    untiled(network, path, tmp_path / "whole", rules, files)
    labels = labels_of(tmp_path / "whole")
    longest = max(np.ptp(np.nonzero(labels == n)[1]) for n in range(1, labels.max() + 1))
    assert labels.max() > 15 and (longest > 150 or split != "none")
    np.testing.assert_array_equal(labels_of(tmp_path / "tiled"), labels)
    for ending in (".geojson", "_centroids.csv", "_instances.png"):
        assert (tmp_path / "tiled" / f"slide{ending}").read_bytes() == (
            tmp_path / "whole" / f"slide{ending}"
        ).read_bytes(), ending
    drawn = [np.asarray(Image.open(tmp_path / d / "slide_overlay.png")) for d in ("tiled", "whole")]
    np.testing.assert_array_equal(*drawn)
    told = json.loads(record.read_text())
    assert (told["height"], told["width"], told["instances"]) == (150, 210, labels.max())
    assert sum(told["instances_by_class"].values()) == labels.max() and len(told["instances_by_class"]) == classes - 1


def test_too_little_overlap_shows(tmp_path: Path) -> None:
    """The comparison above can fail: tiles without context give another result."""
    path, network = slide(tmp_path / "slide.png"), Blurry()
    segmenter(network, tmp_path / "tiled", overlap_px=0).run([{"image": str(path)}])
    untiled(network, path, tmp_path / "whole", InstanceRules(), InstanceFiles())
    assert bool((labels_of(tmp_path / "tiled") != labels_of(tmp_path / "whole")).any())


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    align=st.sampled_from([1, 2, 16]),
    overlap=st.integers(0, 40),
    more=st.integers(0, 60),
)
def test_cores_cover_every_pixel_once_with_context(shape: tuple[int, int], align: int, overlap: int, more: int) -> None:
    covered = np.zeros(shape, int)
    for tile in tiles(shape, overlap + align + more, overlap, align):
        covered[tile.core] += 1
        for seen, core, size in zip(tile.seen, tile.core, shape, strict=True):
            assert seen.start % align == 0 and seen.stop - seen.start <= overlap + align + more
            assert core.start - seen.start >= overlap // 2 or seen.start == core.start == 0
            assert seen.stop - core.stop >= overlap // 2 or seen.stop == core.stop == size
        assert covered[tile.seen][tile.inner].shape == covered[tile.core].shape
    assert bool((covered == 1).all())


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (64, 64), (65, 200)])
def test_images_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path, network = slide(tmp_path / "slide.png", *size), Blurry()
    segmenter(network, tmp_path / "tiled").run([{"image": str(path)}])
    untiled(network, path, tmp_path / "whole", InstanceRules(), InstanceFiles())
    np.testing.assert_array_equal(labels_of(tmp_path / "tiled"), labels_of(tmp_path / "whole"))


def test_batches_hold_tiles_of_one_size(tmp_path: Path) -> None:
    network = Blurry()
    segmenter(network, tmp_path / "o").run([{"image": str(slide(tmp_path / "slide.png"))}])
    assert max(shape[0] for shape in network.calls) == 3
    assert sum(shape[0] for shape in network.calls) == sum(1 for _ in tiles((150, 210), 64, 32, 2))


def test_finished_images_are_skipped_until_something_changes(tmp_path: Path) -> None:
    network, item = Blurry(), {"image": str(slide(tmp_path / "slide.png"))}
    out = tmp_path / "o"
    segmenter(network, out).run([item])
    assert sorted(p.name for p in out.iterdir()) == sorted(f"slide{ending}" for ending in ENDINGS)

    def works(**options: Any) -> bool:
        network.calls.clear()
        segmenter(network, out, **options).run([item])
        return bool(network.calls)

    assert not works()
    assert works(rules=InstanceRules(threshold=0.6)) and not works(rules=InstanceRules(threshold=0.6))
    (out / "slide.geojson").unlink()
    assert works(rules=InstanceRules(threshold=0.6))
    with torch.no_grad():
        network.scale += 1
    assert works(rules=InstanceRules(threshold=0.6))
    assert works(rules=InstanceRules(threshold=0.6), normalize=lambda x: x - 0.5)
    assert works(rules=InstanceRules(threshold=0.6))
    slide(tmp_path / "slide.png", seed=1)
    assert works(rules=InstanceRules(threshold=0.6)) and not works(rules=InstanceRules(threshold=0.6))


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from fewlabel.transforms import instance_files
    from tests.engines.test_whole_image import Blurry, segmenter
    write = instance_files.InstanceFiles._write_outlines
    def killed(self, *args):
        write(self, *args)
        os.kill(os.getpid(), signal.SIGKILL)
    instance_files.InstanceFiles._write_outlines = killed
    segmenter(Blurry(), Path(sys.argv[2])).run([{"image": sys.argv[1]}])
"""


def test_a_killed_run_leaves_nothing_half_written_and_starts_again(tmp_path: Path) -> None:
    path, out = slide(tmp_path / "slide.png"), tmp_path / "o"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(out)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in out.iterdir()] == [".slide.work"]
    assert (out / ".slide.work" / "slide.geojson").is_file()
    segmenter(Blurry(), out).run([{"image": str(path)}])
    assert sorted(p.name for p in out.iterdir()) == sorted(f"slide{ending}" for ending in ENDINGS)
    untiled(Blurry(), path, tmp_path / "whole", InstanceRules(), InstanceFiles())
    np.testing.assert_array_equal(labels_of(out), labels_of(tmp_path / "whole"))


def test_folders_weights_and_mode(tmp_path: Path) -> None:
    paths = [slide(tmp_path / "in" / folder / "slide.png", 70, 80, seed=n) for n, folder in enumerate("ab")]
    trained = Blurry()
    with torch.no_grad():
        trained.scale += 2
    (tmp_path / "models").mkdir()
    torch.save(trained.state_dict(), tmp_path / "models" / "model.pt")
    network = Blurry().train()
    items = [{"image": str(path)} for path in paths]
    records = segmenter(network, tmp_path / "o", data_root_dir=tmp_path / "in", ckpt_dir=tmp_path / "models").run(items)
    assert [r.relative_to(tmp_path / "o").as_posix() for r in records] == [
        "a/slide_instances.json",
        "b/slide_instances.json",
    ]
    assert network.training and torch.equal(network.scale, trained.scale)
    assert segmenter(network, tmp_path / "p").run([]) == [] and not (tmp_path / "p").exists()
    with pytest.raises(ConfigError, match="data_root_dir"):
        segmenter(network, tmp_path / "q").run(items)


def test_what_a_user_can_do_wrong_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slide(tmp_path / "slide.png", 40, 40)
    (tmp_path / "damaged.tif").write_bytes(b"II*\0nothing")
    bad = [{"image": str(tmp_path / name)} for name in ("absent.png", "damaged.tif")]
    network = Blurry()
    with pytest.raises(DataError, match=r"2 problems(.|\n)*absent(.|\n)*damaged"):
        segmenter(network, tmp_path / "o").run([{"image": str(path)}, *bad])
    assert not network.calls
    with pytest.raises(ConfigError, match="overlap_px 63 must leave at least 2 of tile_px 64"):
        segmenter(network, tmp_path, overlap_px=63)
    with pytest.raises(ConfigError, match="batch_size"):
        segmenter(network, tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match=r"holds no model\.pt"):
        segmenter(network, tmp_path / "o", ckpt_dir=tmp_path).run([{"image": str(path)}])
    with pytest.raises(ValueError, match=r"expected logits \(1, K, 40, 40\)"):
        segmenter(nn.AvgPool2d(2), tmp_path / "o").run([{"image": str(path)}])
    assert list((tmp_path / "o").iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(ConfigError, match=r"0\.0 GB left"):
        segmenter(network, tmp_path / "o").run([{"image": str(path)}])


def test_maps_on_disk_are_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array, disk = np.zeros((57, 1301), np.int32), DiskArray(tmp_path / "map", (57, 1301), np.int32)
    for _ in range(30):
        y, x = (np.sort(rng.choice(n + 1, 2, replace=False)).tolist() for n in array.shape)
        window = slice(*y), slice(*x)
        array[window] = values = rng.integers(0, 99, array[window].shape)
        disk[window] = values
        np.testing.assert_array_equal(disk[window], array[window])
    np.testing.assert_array_equal(disk[0:57, 0:1301], array)
    disk.close()


def test_memory_does_not_grow_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NumPy and Python hold at most; a single map in memory would add 9 MB or more."""
    monkeypatch.setattr("fewlabel.transforms.instance_map.STRIP_PX", 1 << 17)
    monkeypatch.setattr("fewlabel.data.image_regions.CACHE_BYTES", 1 << 20)
    peaks = []
    tile = np.asarray(Image.open(slide(tmp_path / "tile.png", 250, 250)))
    for side in (500, 500, 1500):  # the first run compiles
        path = tmp_path / f"{side}.tif"
        tifffile.imwrite(path, np.tile(tile, (side // 250, side // 250, 1)), photometric="rgb", tile=(256, 256))
        tracemalloc.start()
        segmenter(Blurry(), tmp_path / f"o{len(peaks)}", tile_px=128).run([{"image": str(path)}])
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    assert peaks[2] < 25 and peaks[2] - peaks[1] < 4, peaks
