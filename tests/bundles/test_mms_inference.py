# SPDX-License-Identifier: Apache-2.0
"""Inference of the MMS bundle: masks in the grid of each file, whatever its format, size and place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.bundles.conftest import listing
from tests.bundles.probe import Bright
from tests.bundles.tiny import INFERENCE, NETWORK, run

from fewlabel.errors import ConfigError
from fewlabel.networks import EncoderUNet, Twin

Array = NDArray[Any]
PROBE: dict[str, Any] = {"network_def": {"_target_": "tests.bundles.probe.Bright"}, "spatial_size": [96, 128]}


def drawing(height: int, width: int) -> Array:
    """A thick L with a block in the upper right corner, which no turn or flip maps onto itself."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    bars = ((x > 0.1) & (x < 0.35) & (y > 0.2)) | ((y > 0.7) & (x > 0.1) & (x < 0.9))
    return np.asarray(bars | ((x > 0.75) & (y < 0.2)))


def gray(shape: Array, top: int = 255) -> Array:
    return np.where(shape, 0.9 * top, 0.1 * top).astype(np.uint8 if top == 255 else np.uint16)


def color(shape: Array) -> Array:
    """Foreground and background in colors that differ, of mean 0.9 and 0.1."""
    return np.where(shape[..., None], [255, 230, 204], [51, 20, 6]).astype(np.uint8)


def with_alpha(pixels: Array) -> Array:
    alpha = np.random.default_rng(0).integers(0, 256, (*pixels.shape[:2], 1), dtype=np.uint8)
    return np.concatenate([np.atleast_3d(pixels), alpha], axis=2)


FORMATS: dict[str, tuple[tuple[int, int], Callable[[Array], Array]]] = {
    "wide.png": ((60, 100), color),
    "tall.jpg": ((97, 41), color),
    "ward/tiff.tif": ((48, 64), color),
    "ward/gray.png": ((33, 70), gray),
    "ward/deep/sixteen_bit.png": ((120, 80), lambda shape: gray(shape, 65535)),
    "ward/deep/sixteen_bit_tiff.tiff": ((50, 90), lambda shape: gray(shape, 65535)),
    "ward/deep/rgba.png": ((64, 31), lambda shape: with_alpha(color(shape))),
    "other/gray_alpha.png": ((31, 64), lambda shape: with_alpha(gray(shape))),
    "other/wide.png": ((240, 320), color),
    "other/bmp.bmp": ((40, 30), color),
}


def write(root: Path, name: str) -> Path:
    size, paint = FORMATS[name]
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint(drawing(*size))).save(file)
    return file


def read(file: Path) -> Array:
    with Image.open(file) as picture:
        return np.asarray(picture)


def overlap(a: Array, b: Array) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights of the probe lie."""
    folder = tmp_path_factory.mktemp("probe")
    torch.save(Bright().state_dict(), folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictions for a folder with sub-folders that holds every format, in batches of three."""
    root = tmp_path_factory.mktemp("pictures")
    for name in FORMATS:
        write(root, name)
    out = tmp_path_factory.mktemp("out")
    run(root, out, INFERENCE, "inference", ckpt_dir=str(weights), batch_size=3, **PROBE)
    return out / "predictions"


@pytest.mark.parametrize("name", FORMATS)
def test_mask_lies_on_its_picture(folder: Path, name: str) -> None:
    """Size, orientation and sub-folder are the file's own; the mask is one channel of 0 and 1."""
    truth = drawing(*FORMATS[name][0])
    mask = read(folder / Path(name).with_name(f"{Path(name).stem}_mask.png"))
    assert mask.shape == truth.shape and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    found = overlap(mask > 0, truth)
    assert found > 0.85
    turned = (np.flipud(truth), np.fliplr(truth), np.rot90(truth, 2))
    assert max(overlap(mask > 0, other) for other in turned) < found - 0.2, "the drawing must tell orientations apart"


@pytest.mark.parametrize("name", FORMATS)
def test_overlay_shows_the_picture_with_the_mask(folder: Path, name: str) -> None:
    size, paint = FORMATS[name]
    shape = drawing(*size)
    drawn = read(folder / Path(name).with_name(f"{Path(name).stem}_overlay.png"))
    assert drawn.shape == (*size, 3) and drawn.dtype == np.uint8
    if name.endswith(".png") and paint is color:
        near = np.array(Image.fromarray(shape).resize((size[1] // 6, size[0] // 6)).resize(size[::-1]))
        away = ~shape & ~near & (np.mgrid[: size[0], : size[1]][0] < size[0] * 0.6)
        assert np.mean(np.all(drawn[away] == color(shape)[away], axis=-1)) > 0.8, "the ground keeps its pixels"
        assert np.mean(np.all(drawn[shape] == color(shape)[shape], axis=-1)) < 0.1, "the tool is tinted"


def test_folder_gives_a_mask_and_an_overlay_of_each_picture_and_nothing_else(folder: Path) -> None:
    stems = [str(Path(name).with_suffix("")) for name in FORMATS]
    kinds = {f"{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
    assert listing(folder) == kinds


@pytest.mark.parametrize("pattern", ["", "*.png"])
def test_single_picture(weights: Path, tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "in", "wide.png")
    path = file.parent / pattern if pattern else file
    run(path, tmp_path / "out", INFERENCE, "inference", ckpt_dir=str(weights), overlays=False, **PROBE)
    assert listing(tmp_path / "out") == {"predictions/wide_mask.png"}
    assert overlap(read(tmp_path / "out" / "predictions" / "wide_mask.png") > 0, drawing(60, 100)) > 0.85
    assert "1 frames: network" in (printed := capsys.readouterr().out) and printed.count("frames/s") == 2


def test_pictures_of_one_name_are_refused_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    """Both masks would go to the same file."""
    write(tmp_path / "in", "wide.png")
    Image.open(tmp_path / "in" / "wide.png").save(tmp_path / "in" / "wide.bmp")
    with pytest.raises(ConfigError, match=r"wide\.bmp.*wide\.png|wide\.png.*wide\.bmp"):
        run(tmp_path / "in", tmp_path / "out", INFERENCE, "inference", ckpt_dir=str(weights), overlays=False, **PROBE)
    assert not listing(tmp_path / "out")


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose first network says 0.9 everywhere and whose second says 0.2."""
    folder = tmp_path_factory.mktemp("decided")
    twin = Twin(lambda dropout: EncoderUNet(**NETWORK, dropout=dropout))
    for network, probability in ((twin.first, 0.9), (twin.second, 0.2)):
        torch.nn.init.zeros_(network.decoder.head.weight)
        torch.nn.init.constant_(network.decoder.head.bias, float(torch.logit(torch.tensor(probability))))
    torch.save(twin.state_dict(), folder / "model.pt")
    return folder


@pytest.mark.parametrize(("member", "probability"), [("first", 0.9), ("second", 0.2), ("mean", 0.55)])
@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_member_and_threshold(decided: Path, tmp_path: Path, member: str, probability: float, threshold: float) -> None:
    """The mean is that of the probabilities (of logits it would be 0.6), which the uncertainty shows in bits."""
    file = write(tmp_path / "in", "wide.png")
    keys = {"ckpt_dir": str(decided), "member": member, "threshold": threshold, "uncertainty": "true"}
    run(file, tmp_path / "out", INFERENCE, "inference", **keys)
    names = {f"predictions/wide_{kind}.png" for kind in ("mask", "overlay", "uncertainty")}
    assert listing(tmp_path / "out") == names
    mask, bits = (read(tmp_path / "out" / "predictions" / f"wide_{kind}.png") for kind in ("mask", "uncertainty"))
    assert (mask == int(probability >= threshold)).all() and mask.shape == bits.shape == (60, 100)
    entropy = -probability * np.log2(probability) - (1 - probability) * np.log2(1 - probability)
    assert np.abs(bits.astype(float) - 255 * entropy).max() <= 1


def test_uncertainty_lies_on_the_edges(weights: Path, tmp_path: Path) -> None:
    """In the grid of the file: where the picture is smooth the network is certain."""
    file = write(tmp_path / "in", "other/wide.png")
    run(file, tmp_path / "out", INFERENCE, "inference", ckpt_dir=str(weights), uncertainty=True, **PROBE)
    bits = read(tmp_path / "out" / "predictions" / "wide_uncertainty.png")
    shape = drawing(240, 320)
    edge = np.hypot(*np.gradient(shape.astype(float))) > 0
    assert bits.shape == shape.shape and bits[edge].mean() > 100 and np.median(bits[~edge]) < 5
