# SPDX-License-Identifier: Apache-2.0
"""Pictures of the stages show what lies on disk and what the network says, panel by panel, and no label is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from PIL import Image
from tests.report.folders import Page, trained
from torch import Tensor, nn

from fewlabel.data import Splits, pseudo_file
from fewlabel.engines import StageExamples
from fewlabel.errors import ConfigError
from fewlabel.report import write
from fewlabel.transforms import InstanceRules
from fewlabel.transforms.overlay import COLORS

SIZE = 32
SQUARES = np.zeros((SIZE, SIZE), np.uint8)
SQUARES[4:12, 4:12], SQUARES[16:28, 14:28] = 1, 2


class Dark(nn.Module):
    """Logits of what is darker than gray; the weight is there to be loaded."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        dark = self.scale * (0.5 - image[:, :1])
        right = torch.arange(image.shape[3]).expand_as(dark) >= 13
        objects = [dark] if self.classes == 1 else [torch.where(right, -9.0, dark), torch.where(right, dark, -9.0)]
        return torch.cat([torch.zeros_like(dark), *objects], dim=1)


def make(folder: Path, stages: tuple[str, ...], **options: Any) -> StageExamples:
    """Five tiles whose dark squares every stage found; ``stages`` were run."""
    items = [{"image": str(folder / f"tile_{i}.png")} for i in range(5)]
    image = torch.from_numpy(np.where(SQUARES > 0, 0.2, 0.8).astype(np.float32)).expand(3, -1, -1)
    data = Dataset(items, lambda item: dict(item) | {"image": image})
    for index, item in enumerate(items):
        for kind in stages:
            file = pseudo_file(folder, index, item, kind)
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full_like(SQUARES, 10 * index) if kind == "map" else SQUARES).save(file)
    return StageExamples(folder, data, folder, folder, rules=InstanceRules(min_object_px=1), size_px=SIZE, **options)


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "examples" / "stages" / name)).astype(int)


def test_panels_of_all_stages(tmp_path: Path) -> None:
    network = Dark()
    torch.save({"scale": torch.tensor(20.0)}, tmp_path / "model.pt")
    make(tmp_path, ("map", "mask", "voronoi"), network=network, ckpt_dir=tmp_path).run()
    index = json.loads((tmp_path / "examples" / "stages" / "index.json").read_text())
    assert [entry["case"] for entry in index["examples"]] == ["tile_0.png", "tile_2.png", "tile_4.png"]
    assert list(index["examples"][0]["files"]) == ["image", "map", "mask", "points", "instances"]
    assert index["class_names"] is None and network.scale.item() == 20
    assert abs(pixels(tmp_path, "3_map.jpg") - 40).max() <= 1, "the map of the fifth tile"
    image, points, found = (pixels(tmp_path, f"1_{panel}.jpg") for panel in ("image", "points", "instances"))
    assert abs(image[20, 20] - 51).max() < 8 and abs(points[8, 8] - COLORS[0]).max() < 40
    for at, color in (((4, 8), COLORS[0]), ((16, 20), COLORS[1])):
        assert abs(found[at] - color).max() < 60, "each instance has a color of its own"
    page = Page(write(trained(tmp_path)).read_text(encoding="utf-8"))
    assert "Stage by stage" in page.text and "points and Voronoi cells final instances" in page.text
    assert len(page.attributes("img", "alt")) == 15 and "pseudo mask of tile_2.png" in page.attributes("img", "alt")


def test_instances_of_several_classes_have_their_colors(tmp_path: Path) -> None:
    torch.save({"scale": torch.tensor(20.0)}, tmp_path / "model.pt")
    names = ["background", "positive", "negative"]
    examples = make(tmp_path, ("mask",), network=Dark(2), ckpt_dir=tmp_path, class_names=names, count=1)
    examples.run()
    found = pixels(tmp_path, "1_instances.jpg")
    np.testing.assert_allclose(found, pixels(tmp_path, "1_mask.jpg"), err_msg="the mask has the same classes")
    legend = Page(write(trained(tmp_path)).read_text(encoding="utf-8"))
    assert "positive negative" in legend.text


def test_missing_stages_are_left_out_and_old_pictures_go(tmp_path: Path) -> None:
    make(tmp_path, ("mask",)).run()
    folder = tmp_path / "examples" / "stages"
    assert sorted(f.name for f in folder.iterdir())[:2] == ["1_image.jpg", "1_mask.jpg"]
    for file in (tmp_path / "mask").iterdir():
        file.unlink()
    make(tmp_path, ()).run()
    assert list(folder.iterdir()) == [], "the image alone shows no stage"
    assert "Stage by stage" not in Page(write(trained(tmp_path)).read_text(encoding="utf-8")).text


def test_center_of_large_images(tmp_path: Path) -> None:
    examples = make(tmp_path, ("mask",), count=1)
    examples.size_px = 16
    examples.run()
    assert pixels(tmp_path, "1_image.jpg").shape == (16, 16, 3)
    assert abs(pixels(tmp_path, "1_image.jpg")[14, 14] - 51).max() < 30, "(22, 22) of the image"


def test_labels_stay_closed(tmp_path: Path) -> None:
    label = tmp_path / "label.png"
    Image.fromarray(SQUARES).save(label)
    splits = Splits((), (), (), held_back={str(label): "tile_0.png, which nobody may open"})
    examples = make(tmp_path, ("mask",), splits=splits)
    examples.dataset.transform = lambda item: Image.open(label)
    with pytest.raises(ConfigError, match=r"tile_0\.png, which nobody may open"):
        examples.run()
