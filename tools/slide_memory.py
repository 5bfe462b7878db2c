# SPDX-License-Identifier: Apache-2.0
"""Measure memory and time of segmenting whole images of nuclei with the weights of the bundle, and append the rows.

Usage::

    python tools/slide_memory.py --csv_file FILE [--sides 1000,4000,8000] [--device cuda]

The images are mosaics of the phantom tiles, in TIFF. Each is segmented by ``inference`` in a process of its own, whose
peak of resident memory counts, all libraries included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

import fire  # noqa: E402
import numpy as np  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
from skimage.io import imread  # noqa: E402

from fewlabel.data import phantoms  # noqa: E402
from fewlabel.data.files import listed  # noqa: E402
from tools.bench.run import Row, write  # noqa: E402
from tools.throughput import stamp_of  # noqa: E402

BUNDLE = "pathology_nuclei_segmentation_psm"
CONFIGS = ("inference", "light", "dsb2018_weights")


def main(csv_file: str, sides: Any = (1000, 4000, 8000), device: str = "cpu") -> None:
    """Segment square images of growing size; print and append one row each.

    Args:
        csv_file: where rows are appended.
        sides: of the images, in pixels, separated by commas.
        device: such as ``cuda`` or ``cpu``.
    """
    stamp = stamp_of(BUNDLE, CONFIGS, torch.device(device)) | {"threads": torch.get_num_threads()}
    for side in map(int, listed(sides)):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(mosaic(Path(folder), side), Path(folder) / "out", device)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        write([stamp | {"side_px": side} | row], Path(csv_file))


def mosaic(folder: Path, side: int) -> Path:
    """Write a square image of phantom tiles, in raster order and again from the first.

    Args:
        folder: where it goes.
        side: in pixels.

    Returns:
        The file, a tiled TIFF.
    """
    tiles = [imread(file) for file in sorted((phantoms.folder("histology") / "images").glob("*.png"))]
    count = -(-side // min(tiles[0].shape[:2]))
    rows = [[tiles[(count * i + j) % len(tiles)] for j in range(count)] for i in range(count)]
    image = np.vstack([np.hstack(row) for row in rows])[:side, :side]
    tifffile.imwrite(folder / "slide.tif", image, photometric="rgb", tile=(256, 256), compression="zlib")
    return folder / "slide.tif"


def measure(image: Path, output_dir: Path, device: str) -> Row:
    """Segment an image in a process of its own.

    Args:
        image: the file.
        output_dir: where its results go.
        device: where the network runs.

    Returns:
        Seconds of the process, its peak of resident memory, and how many nuclei it found.

    Raises:
        SystemExit: inference failed; what it printed comes first.
    """
    configs = [f"configs/{name}.json" for name in CONFIGS]
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(configs)]
    keys = {"dataset_dir": image, "output_dir": output_dir, "device": device, "overlays": False}
    start = time.perf_counter()
    with image.with_suffix(".log").open("w+", encoding="utf-8") as log:
        arguments = [*command, *(part for key, value in keys.items() for part in (f"--{key}", str(value)))]
        process = subprocess.Popen(arguments, cwd=ROOT / "bundles" / BUNDLE, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            log.seek(0)
            raise SystemExit(f"{log.read()}\ninference of {image} failed")
    (centroids,) = output_dir.rglob("*centroids.csv")
    nuclei = len(centroids.read_text(encoding="utf-8").splitlines()) - 1
    return {"seconds": f"{seconds:.1f}", "peak_gb": f"{usage.ru_maxrss * 1024 / 1e9:.2f}", "nuclei": nuclei}


if __name__ == "__main__":
    fire.Fire(main)
