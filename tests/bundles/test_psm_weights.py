# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the PSM bundle: small, safe to load, those of the row that their card quotes, of use."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from safetensors.torch import load_file
from tests.bundles.tiny import INFERENCE, NUCLEI, config_files

from fewlabel.data.randomness import one_thread
from fewlabel.pseudolabels import optical_density

FOLDER = NUCLEI / "weights" / "dsb2018"
CARD = FOLDER / "README.md"
HEAVIEST = 8 * 2**20


def test_both_files_hold_the_same_and_are_small() -> None:
    weights = torch.load(FOLDER / "model.pt", weights_only=True)
    safe = load_file(FOLDER / "model.safetensors")
    assert weights.keys() == safe.keys()
    assert all(torch.equal(weights[key], safe[key]) for key in safe)
    assert sum(file.stat().st_size for file in FOLDER.glob("model.*")) <= HEAVIEST


def test_card_quotes_the_row_of_the_run() -> None:
    """Draw 0 of the final network in the published rows is the run that made the weights."""
    with (NUCLEI / "docs" / "evidence_dsb2018.csv").open(newline="") as file:
        (row,) = (r for r in csv.DictReader(file) if (r["variant"], r["draw"]) == ("psm", "0"))
    card = CARD.read_text(encoding="utf-8")
    quoted = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|$", card, flags=re.MULTILINE))
    assert {"aji", "pixel_f1", "detection_f1"} <= quoted.keys()
    assert quoted == {key: f"{float(row[key]):.3f}" for key in quoted}
    assert row["commit"] in card


@pytest.mark.slow
def test_picture_of_scikit_image_as_the_page_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/nuclei.md shows: nuclei are found, and they are where the stain is."""
    page = (NUCLEI.parents[1] / "docs" / "nuclei.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    workflow = ConfigWorkflow(
        config_files([*INFERENCE, "dsb2018_weights"], NUCLEI),
        workflow_type="inference",
        run_id="inference",
        logging_file=False,
        bundle_root=str(NUCLEI),
        dataset_dir=str(tmp_path / "my_tiles"),
        output_dir=str(tmp_path / "out"),
        device="cpu",
    )
    with one_thread():
        workflow.initialize()
        workflow.run()
    found = np.asarray(Image.open(tmp_path / "out" / "predictions" / "ihc_instances.png"))
    picture = np.asarray(Image.open(tmp_path / "my_tiles" / "ihc.png"))
    said = int(re.findall(r"(\d+) nuclei", page)[0])
    assert found.max() == pytest.approx(said, rel=0.02)
    density = optical_density(torch.from_numpy(picture.copy()).float() / 255).mean(-1).numpy()
    assert np.median(density[found > 0]) > 1.5 * np.median(density[found == 0])
