# SPDX-License-Identifier: Apache-2.0
"""Files of instances, read back by other libraries and compared with the label map."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Transposed
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewlabel.errors import ConfigError
from fewlabel.transforms import InstanceFiles, InstanceRules, InstancesFromLogitsd, SaveInstancesd, ToRGBd
from fewlabel.transforms.instance_files import staged
from fewlabel.transforms.instance_table import InstanceTable
from fewlabel.transforms.overlay import COLORS
from fewlabel.transforms.png import write_png

H, W = 24, 40


def scene(folder: Path, name: str = "slide.png") -> tuple[str, NDArray[np.int32]]:
    """A picture whose red is its column and whose green is its row, and instances that no symmetry maps on itself."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:H, :W]
    Image.fromarray(np.stack([x * 5, y * 9, 0 * x], -1).astype(np.uint8)).save(folder / name)
    labels = np.zeros((H, W), np.int32)
    labels[2:5, 30:39] = 1
    labels[6:16, 3:10] = 2
    labels[9:12, 5:8] = 0  # a hole
    labels[18:20, 20:22], labels[20:22, 22:24] = 3, 3  # joined at a corner
    return str(folder / name), labels


def item(source: str, labels: NDArray[np.int32], **more: Any) -> dict[str, Any]:
    return {"pred": MetaTensor(torch.from_numpy(labels.T.copy())[None], meta={"filename_or_obj": source}), **more}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def drawn(features: list[dict[str, Any]]) -> NDArray[np.int64]:
    """Rasterize polygons by Pillow on a grid four times as fine and look at the centers of pixels."""
    out = np.zeros((H, W), np.int64)
    for number, feature in enumerate(features, 1):
        geometry = feature["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        for outer, *holes in parts:
            fine = Image.new("L", (4 * W, 4 * H))
            pen = ImageDraw.Draw(fine)
            for ring, value in ((outer, 1), *((hole, 0) for hole in holes)):
                inset = -0.5  # Pillow fills up to and including the border
                pen.polygon([(4 * x + inset, 4 * y + inset) for x, y in ring], fill=value)
            out[np.asarray(fine)[2::4, 2::4] == 1] = number
    return out


def test_every_file_has_x_to_the_right_and_y_down(tmp_path: Path) -> None:
    source, labels = scene(tmp_path / "in")
    kinds, means = torch.tensor([2, 1, 1]), torch.tensor([0.9, 0.8, 0.7])
    files = InstanceFiles(class_names=("background", "positive", "negative"), colors=["red", (0, 0, 255)])
    given = item(source, labels, pred_kinds=kinds, pred_probability=means)
    SaveInstancesd("pred", tmp_path / "out", files)(given)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "slide.geojson",
        "slide_centroids.csv",
        "slide_instances.png",
        "slide_overlay.png",
    ]
    saved = Image.open(out / "slide_instances.png")
    assert saved.mode.startswith("I;16")
    np.testing.assert_array_equal(np.asarray(saved), labels)
    rows = rows_of(out / "slide_centroids.csv")
    assert list(rows[0].values()) == ["1", "34.50", "3.50", "27", "negative", "0.9000"]
    assert [(r["id"], r["class"], r["area_px"]) for r in rows[1:]] == [("2", "positive", "61"), ("3", "positive", "8")]
    assert (rows[2]["x_px"], rows[2]["y_px"]) == ("22.00", "20.00")
    content = json.loads((out / "slide.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    np.testing.assert_array_equal(drawn(features), labels)
    assert [f["geometry"]["type"] for f in features] == ["Polygon", "Polygon", "MultiPolygon"]
    assert len(features[1]["geometry"]["coordinates"]) == 2
    assert features[0]["properties"] == {
        "objectType": "detection",
        "name": "1",
        "classification": {"name": "negative", "color": [0, 0, 255]},
        "measurements": {"area_px": 27, "mean_probability": 0.9},
    }
    picture, before = np.asarray(Image.open(out / "slide_overlay.png")), np.asarray(Image.open(source))
    assert tuple(picture[2, 30]) == (0, 0, 255) and tuple(picture[6, 3]) == (255, 0, 0)
    for inner in ((3, 33), (0, 0), (10, 6)):
        assert tuple(picture[inner]) == tuple(before[inner])


def test_from_file_to_files_through_the_transforms_of_a_bundle(tmp_path: Path) -> None:
    source, labels = scene(tmp_path / "in" / "a")
    pre = Compose(
        [
            LoadImaged("image", dtype=None),
            EnsureChannelFirstd("image"),
            ToRGBd("image"),
            Transposed("image", [0, 2, 1]),
        ]
    )
    data = pre({"image": source})
    assert data["image"].shape == (3, H, W)
    foreground = torch.from_numpy(labels > 0).float() * 8 - 4
    data["pred"] = MetaTensor(torch.stack([torch.zeros(H, W), foreground]))
    post = Compose(
        [
            Invertd("pred", transform=pre, orig_keys="image", nearest_interp=False, to_tensor=True),
            InstancesFromLogitsd("pred", InstanceRules(min_object_px=1, max_hole_px=0), axes="WH"),
            SaveInstancesd("pred", tmp_path / "out", data_root_dir=tmp_path / "in"),
        ]
    )
    post(data)
    saved = np.asarray(Image.open(tmp_path / "out" / "a" / "slide_instances.png"))
    np.testing.assert_array_equal(saved, labels)
    assert rows_of(tmp_path / "out" / "a" / "slide_centroids.csv")[0]["mean_probability"] == "0.9820"


def test_many_instances_are_a_tiff_of_32_bits_and_replace_a_png(tmp_path: Path) -> None:
    labels = np.arange(1, 70_001, dtype=np.int32).reshape(700, 100)
    table = InstanceTable(70_000)
    table.add(labels)
    files = InstanceFiles(outlines=False)
    few = np.ones((4, 5), np.int32)
    one = InstanceTable(1)
    one.add(few)
    for values, facts, there, gone in (
        (few, one, "png", "tif"),
        (labels, table, "tif", "png"),
        (few, one, "png", "tif"),
    ):
        with staged(tmp_path / "x") as prefix:
            files.write(prefix, values, facts)
        assert (tmp_path / f"x_instances.{there}").is_file() and not (tmp_path / f"x_instances.{gone}").exists()
        if there == "tif":
            np.testing.assert_array_equal(tifffile.imread(tmp_path / "x_instances.tif"), labels)
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x_instances.tif")), labels)


def test_nothing_half_written_has_its_final_name(tmp_path: Path) -> None:
    (tmp_path / "x_instances.png").write_text("of an earlier run")
    with pytest.raises(RuntimeError), staged(tmp_path / "x") as prefix:
        prefix.with_name("x.geojson").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["x_instances.png"]


def test_no_instances_and_large_pictures(tmp_path: Path) -> None:
    source, labels = scene(tmp_path / "in")
    SaveInstancesd("pred", tmp_path / "out", InstanceFiles(overlay_max_px=H * W - 1))(item(source, 0 * labels))
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".csv", ".geojson", ".png"]
    assert json.loads((tmp_path / "out" / "slide.geojson").read_text())["features"] == []
    assert rows_of(tmp_path / "out" / "slide_centroids.csv") == []
    SaveInstancesd("pred", tmp_path / "all")(item(source, 0 * labels))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "all" / "slide_overlay.png")), Image.open(source))


def test_overlay_in_strips_is_the_overlay_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, labels = scene(tmp_path / "in")
    SaveInstancesd("pred", tmp_path / "a")(item(source, labels))
    monkeypatch.setattr("fewlabel.transforms.instance_map.STRIP_PX", 3 * W)
    SaveInstancesd("pred", tmp_path / "b")(item(source, labels))
    for name in ("slide_overlay.png", "slide_instances.png"):
        np.testing.assert_array_equal(*(np.asarray(Image.open(tmp_path / d / name)) for d in "ab"))
    assert (tmp_path / "a" / "slide.geojson").read_text() == (tmp_path / "b" / "slide.geojson").read_text()
    assert tuple(np.asarray(Image.open(tmp_path / "a" / "slide_overlay.png"))[2, 30]) == COLORS[0]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    source, labels = scene(tmp_path / "in")
    save = SaveInstancesd("pred", tmp_path / "out")
    save(item(source, labels))
    with pytest.raises(ConfigError, match="data_root_dir"):
        save(item(scene(tmp_path / "other")[0], labels))
    with pytest.raises(ValueError, match="check Invertd and axes"):
        SaveInstancesd("pred", tmp_path, axes="HW")(item(source, labels))
    with pytest.raises(ValueError, match="file name in the metadata of 'pred'"):
        save({"pred": torch.zeros(1, W, H)})
    with pytest.raises(ValueError, match=r"0 and 1 \.\.\. N"):
        save(item(source, labels * 2))
    with pytest.raises(ValueError, match="'pred_kinds' of 3 instances"):
        save(item(source, labels, pred_kinds=torch.ones(2)))
    with pytest.raises(ConfigError, match="object_type"):
        InstanceFiles(object_type="nucleus")
    with pytest.raises(ConfigError, match="colors"):
        InstanceFiles(colors=["no color"])


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", ()), ("uint16", ()), ("uint8", (3,))])
def test_png_by_strips_is_what_pillow_reads(tmp_path: Path, dtype: str, channels: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (13, 7, *channels)).astype(dtype)
    write_png(tmp_path / "a.png", pixels.shape, np.split(pixels, [1, 5, 12]))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    with pytest.raises(ValueError, match="expected 14 rows, received 13"):
        write_png(tmp_path / "b.png", (14, *pixels.shape[1:]), [pixels])
    with pytest.raises(ValueError, match="expected strips"):
        write_png(tmp_path / "b.png", pixels.shape, [pixels.astype(np.float32)])
