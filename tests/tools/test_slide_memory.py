# SPDX-License-Identifier: Apache-2.0
"""The measure of whole images: the picture has its size, and a run says what it took."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from tools.slide_memory import measure, mosaic


def test_mosaic_is_a_picture_of_the_side(tmp_path: Path) -> None:
    image = tifffile.imread(mosaic(tmp_path, 300))
    assert image.shape == (300, 300, 3) and image.dtype == "uint8" and image.std() > 10


def test_inference_in_a_process_of_its_own(tmp_path: Path) -> None:
    row = measure(mosaic(tmp_path, 256), tmp_path / "out", "cpu")
    assert row["nuclei"] > 5 and 0.2 < float(row["peak_gb"]) < 8 and float(row["seconds"]) > 0


def test_failure_shows_what_inference_said(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match=r"(?s)broken\.tif.*inference of .* failed"):
        measure(tmp_path / "broken.tif", tmp_path / "out", "cpu")
