# SPDX-License-Identifier: Apache-2.0
"""Windows of pictures; oracle: the readers and transforms of a bundle on the whole file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Transposed
from PIL import Image

from fewlabel.data import AnyReader, ImageRegions, image_size, split_by_size
from fewlabel.data.image_regions import _Segments
from fewlabel.errors import DataError
from fewlabel.transforms import ToRGBd

H, W = 70, 101
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (H, W, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (H, W, 3), dtype=np.uint16)
GRAY = RGB[..., 0]
PLANES = np.moveaxis(RGB, -1, 0).copy()


def tiff(pixels: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def pil(pixels: Any, mode: str = "", **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        picture = Image.fromarray(pixels)
        (picture.convert(mode) if mode else picture).save(path, **options)

    return write


PIECEWISE = {
    "mapped.tif": tiff(RGB, photometric="rgb"),
    "tiled.tif": tiff(RGB, photometric="rgb", compression="zlib", tile=(32, 16)),
    "striped.tiff": tiff(RGB, photometric="rgb", compression="zlib", rowsperstrip=9, predictor=True),
    "packed.tif": pil(RGB, compression="packbits"),
    "deep_gray.tif": tiff(DEEP[..., 0]),
    "deep_gray_tiled.tif": tiff(DEEP[..., 0], compression="zlib", tile=(16, 16)),
    "deep_color.tif": tiff(DEEP, photometric="rgb", compression="zlib"),
    "deep_color_mapped.tif": tiff(DEEP, photometric="rgb"),
    "alpha.tif": tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]),
    "planes.tif": tiff(PLANES, photometric="rgb", planarconfig="separate"),
    "planes_tiled.tif": tiff(PLANES, photometric="rgb", planarconfig="separate", compression="zlib", tile=(32, 16)),
    "white_zero.tif": tiff(GRAY, photometric="miniswhite"),
    "float.tif": tiff((GRAY / 255).astype(np.float32), compression="zlib"),
}
WHOLE = {
    "lzw.tif": pil(RGB, compression="tiff_lzw"),
    "bits.tif": tiff(GRAY > 99),
    "turned.tif": tiff(RGB, photometric="rgb", extratags=[(274, 3, 1, 6, True)]),
    "color.png": pil(RGB),
    "alpha.png": pil(RGBA),
    "gray_alpha.png": pil(RGBA, "LA"),
    "deep_gray.png": pil(DEEP[..., 0]),
    "bits.png": pil(GRAY > 99),
    "color.jpg": pil(RGB),
}


def whole(path: Path) -> torch.Tensor:
    steps = [
        LoadImaged("i", reader=AnyReader, dtype=None),
        EnsureChannelFirstd("i"),
        ToRGBd("i"),
        Transposed("i", [0, 2, 1]),
    ]
    return torch.as_tensor(Compose(steps)({"i": str(path)})["i"].as_tensor())


@pytest.mark.parametrize("name", [*PIECEWISE, *WHOLE])
def test_windows_are_those_of_the_readers(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (PIECEWISE | WHOLE)[name](path)
    expected = whole(path)
    with ImageRegions(path, whole_px=0 if name in PIECEWISE else H * W) as image:
        assert image.shape == image_size(path) == tuple(expected.shape[1:])
        height, width = image.shape
        for rows, columns in ((slice(0, height), slice(0, width)), (slice(5, 51), slice(17, 60)), (slice(69, 70),) * 2):
            got = image.read(rows, columns)
            assert type(got) is torch.Tensor and got.dtype == torch.float32
            assert torch.equal(got, expected[:, rows, columns])
        with pytest.raises(IndexError, match="inside"):
            image.read(slice(0, height + 1), slice(0, 1))


def test_only_the_segments_of_a_window_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PIECEWISE["tiled.tif"](tmp_path / "a.tif")
    decoded: list[int] = []
    before = _Segments._segment
    monkeypatch.setattr(_Segments, "_segment", lambda self, index: (decoded.append(index), before(self, index))[1])
    with ImageRegions(tmp_path / "a.tif") as image:
        image.read(slice(33, 40), slice(10, 40))
    assert decoded == [7, 8, 9]


def test_full_resolution_of_a_pyramid(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as out:
        out.write(RGB, photometric="rgb", compression="zlib", tile=(32, 32), subifds=1)
        out.write(RGB[::2, ::2], photometric="rgb", compression="zlib", tile=(16, 16), subfiletype=1)
    with ImageRegions(path) as image:
        np.testing.assert_array_equal(image.read(slice(0, H), slice(0, W)).mul(255).round().byte().numpy(), PLANES)


def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0nothing")
    (tmp_path / "text.txt").write_text("no picture")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([GRAY] * 3), photometric="minisblack")
    WHOLE["color.png"](tmp_path / "large.png")
    WHOLE["lzw.tif"](tmp_path / "large.tif")
    for name, words in {
        "absent.png": "does not exist",
        "damaged.png": "cannot be read",
        "damaged.tif": "cannot be read",
        "text.txt": "is no picture",
        "stack.tif": "has 3 pages",
        "large.png": "has 101 x 70 pixels and as PNG must be decoded whole, .* up to 99 pixels: save it as tiled TIFF",
        "large.tif": "imagecodecs",
    }.items():
        with pytest.raises(DataError, match=f"{name}' .*{words}"):
            ImageRegions(tmp_path / name, whole_px=99)


def test_damaged_segments_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    PIECEWISE["tiled.tif"](path)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\0" * 64)
    with ImageRegions(path) as image:
        assert image.read(slice(40, 50), slice(20, 30)).shape == (3, 10, 10)
        with pytest.raises(DataError, match=r"a\.tif' cannot be read"):
            image.read(slice(0, 5), slice(0, 5))


def test_palettes_and_inks_are_refused_as_by_the_transforms(tmp_path: Path) -> None:
    pil(RGB, "P")(tmp_path / "palette.png")
    pil(RGB, "P")(tmp_path / "palette.tif")
    pil(RGB, "CMYK")(tmp_path / "inks.tif")
    for name, words in {"palette.png": "mode P", "palette.tif": "mode P", "inks.tif": "mode CMYK"}.items():
        with ImageRegions(tmp_path / name) as image, pytest.raises(DataError, match=words):
            image.read(slice(0, 5), slice(0, 5))


def test_split_by_size_reads_headers(tmp_path: Path) -> None:
    for name in ("mapped.tif", "tiled.tif"):
        PIECEWISE[name](tmp_path / name)
    pil(RGB[:10, :10])(tmp_path / "small.png")
    (tmp_path / "scan.nii.gz").write_bytes(b"not opened")
    items = [{"image": str(tmp_path / n)} for n in ("tiled.tif", "small.png", "scan.nii.gz", "mapped.tif")]
    small, large = split_by_size(items, max_pixels=H * W - 1)
    assert (small, large) == (items[1:3], [items[0], items[3]])
    assert split_by_size(items, max_pixels=H * W) == (items, []) and split_by_size([]) == ([], [])
    absent = [{"image": str(tmp_path / "absent.png")}]
    assert split_by_size(absent, max_pixels=1) == (absent, []), "the check before inference reports it"
    bad = [{"image": str(tmp_path / f"broken{i}.png")} for i in range(2)]
    for item in bad:
        Path(item["image"]).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 problems(.|\n)*broken0(.|\n)*broken1"):
        split_by_size([*items, *bad])
