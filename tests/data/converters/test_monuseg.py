# SPDX-License-Identifier: Apache-2.0
"""MoNuSeg on fabricated samples of its exact format: LZW TIFF and ImageScope XML under the official folder names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabel.data import read_datalist
from fewlabel.data.converters import convert_monuseg, read_annotation
from fewlabel.data.converters.monuseg import ADDED, TEST, TRAINING, revision
from fewlabel.errors import ConfigError, DataError

SQUARES = ([(2.5, 3), (12.25, 3), (12.25, 13), (2.5, 13)], [(20, 20), (24, 20), (24, 24), (20, 24)])
HEAD = """<Annotations MicronsPerPixel="0.252100">
 <Annotation Id="1" Name="" ReadOnly="0" NameReadOnly="0" LineColorReadOnly="0" Incremental="0" Type="4"
  LineColor="65280" Visible="1" Selected="1" MarkupImagePath="" MacroName="">
  <Attributes><Attribute Name="Description" Id="0" Value=""/></Attributes>
  <Regions>
   <RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/></RegionAttributeHeaders>
"""
REGION = """<Region Id="{0}" Type="0" Zoom="0.042148" Selected="0" ImageLocation="" ImageFocus="0" Length="74565.8"
 Area="213363186.2" LengthMicrons="18798.0" AreaMicrons="13560170.4" Text="" NegativeROA="{1}" InputRegionId="0"
 Analyze="1" DisplayId="{0}"><Attributes/><Vertices>{2}</Vertices></Region>
"""
TAIL = "  </Regions><Plots/></Annotation></Annotations>\n"
TRAIN_FOLDER, TEST_FOLDER = "MoNuSeg 2018 Training Data", "MoNuSegTestData"


def xml_of(outlines: Sequence[Sequence[tuple[float, float]]], negative: int = 0) -> str:
    regions = []
    for number, corners in enumerate(outlines, 1):
        vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
        regions.append(REGION.format(number, int(number > len(outlines) - negative), vertices))
    return HEAD + "".join(regions) + TAIL


def add(pictures: Path, outlines: Path, stem: str, xml: str = xml_of(SQUARES), size: int = 32) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    outlines.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:4])
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pictures / f"{stem}.tif", compression="tiff_lzw")
    (outlines / f"{stem}.xml").write_text(xml)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six training tiles, one of them of the later revision, and two test tiles, as the archives unpack."""
    root = tmp_path / "download"
    for stem in [*sorted(TRAINING)[:5], *sorted(ADDED)[:1]]:
        add(root / TRAIN_FOLDER / "Tissue Images", root / TRAIN_FOLDER / "Annotations", stem)
    for stem in sorted(TEST)[:2]:
        add(root / TEST_FOLDER, root / TEST_FOLDER, stem)
    resource_forks = root / "__MACOSX" / TEST_FOLDER
    resource_forks.mkdir(parents=True)
    (resource_forks / f"._{sorted(TEST)[0]}.tif").write_bytes(b"\0")
    return root


def test_tiles_and_instances_are_those_of_the_source(source: Path, tmp_path: Path) -> None:
    found = convert_monuseg(source, tmp_path / "out")
    assert (found["training"], found["validation"], found["test"], found["nuclei"], found["lost"]) == (4, 2, 2, 16, 0)
    lists = read_datalist(tmp_path / "out")
    for item in [*lists.training, *lists.validation, *lists.test]:
        tile = next(source.rglob(f"{Path(item['image']).stem}.tif"))
        assert np.array_equal(np.asarray(Image.open(item["image"])), np.asarray(Image.open(tile)))
        label = np.asarray(Image.open(item["label"]))
        assert label.dtype == np.uint16 and np.bincount(label.ravel()).tolist() == [1024 - 116, 100, 16]
        assert (label[3:13, 2:12] == 1).all() and (label[20:24, 20:24] == 2).all()
        assert item["microns_per_pixel"] == 0.2521


def test_lists_follow_the_official_test_set_and_patients(source: Path, tmp_path: Path) -> None:
    one, two = sorted(TRAINING)[:2]
    name = sorted(ADDED)[0][:12]
    convert_monuseg(source, tmp_path / "out", validation=[name, one[:12]])
    lists = read_datalist(tmp_path / "out")
    assert {Path(i["image"]).stem for i in lists.test} == set(sorted(TEST)[:2])
    assert {i["group"] for i in lists.validation} == {name, one[:12]}
    assert two[:12] in {i["group"] for i in lists.training}


def test_manifest_names_every_file_and_its_hash(source: Path, tmp_path: Path) -> None:
    convert_monuseg(source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    files = {s["file"]: s["sha256"] for s in manifest["sources"]}
    assert len(files) == 16
    for name, digest in files.items():
        assert hashlib.sha256((source / name).read_bytes()).hexdigest() == digest
    assert manifest["revision"].startswith("training of the later revision (6 of 37, 1 of the 7 added), 2 of 14 test")
    assert "fewest pixels" in manifest["overlaps"] and str(tmp_path) not in json.dumps(manifest)


def test_odd_regions_are_counted(source: Path, tmp_path: Path) -> None:
    stem = sorted(TRAINING)[0]
    outlines = [*SQUARES, [(3.3, 4.0), (3.6, 4.0)], [(0, 0), (30, 0), (30, 30), (0, 30)], SQUARES[0]]
    folder = source / TRAIN_FOLDER
    add(folder / "Tissue Images", folder / "Annotations", stem, xml_of(outlines, negative=1))
    assert convert_monuseg(source, tmp_path / "out")["lost"] == 1
    fact = json.loads((tmp_path / "out" / "manifest.json").read_text())["images"][stem]
    assert (fact["nuclei"], fact["lost"], fact["negative"], fact["shared_px"]) == (3, ["3"], 1, 116)
    assert fact["size"] == [32, 32]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (TRAINING | TEST, "training of the first revision (30 of 30, without the 7 added later), 14 of 14 test tiles"),
        (TRAINING | ADDED, "training of the later revision (37 of 37, 7 of the 7 added)"),
        ({"a", "b"}, "2 of unknown names, taken as training"),
    ],
)
def test_revision_is_told_by_names(names: set[str], text: str) -> None:
    assert revision(names).startswith(text)


def test_known_names_are_as_many_as_published() -> None:
    assert (len(TRAINING), len(ADDED), len(TEST)) == (30, 7, 14)
    assert len({name[:12] for name in TRAINING | ADDED | TEST}) == 51, "no patient is in training and in test"


def test_outlines_of_all_layers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "two.xml"
    path.write_text(xml_of(SQUARES[:1]).replace("</Annotations>", "") + xml_of(SQUARES[1:]).split("\n", 1)[1])
    found = read_annotation(path)
    assert [o.shape for o in found.outlines] == [(4, 2), (4, 2)] and found.outlines[0][0].tolist() == [2.5, 3.0]
    path.write_text("<Annotations/>")
    assert read_annotation(path).outlines == [] and read_annotation(path).microns_per_pixel is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Annotations><Ann", "is not XML"),
        ("<html/>", "begins with <html>"),
        (xml_of([[(1, 2), ("left", 3)]]), "region 1 has a vertex without numbers"),  # type: ignore[list-item]
        (xml_of([[(1, 2), ("nan", 3)]]), "region 1 has a vertex that is not finite"),  # type: ignore[list-item]
    ],
)
def test_broken_outlines_are_one_sentence(source: Path, tmp_path: Path, text: str, message: str) -> None:
    next((source / TRAIN_FOLDER).rglob("*.xml")).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        convert_monuseg(source, tmp_path / "out")
    assert len(error.value.problems) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["download"], "a conversion that stops leaves nothing behind"


def test_all_problems_are_reported_at_once(source: Path, tmp_path: Path) -> None:
    one, two, three = sorted(TRAINING)[:3]
    (source / TRAIN_FOLDER / "Annotations" / f"{one}.xml").unlink()
    (source / TRAIN_FOLDER / "Tissue Images" / f"{two}.tif").unlink()
    add(source / "copy", source / "copy", three)
    with pytest.raises(DataError) as error:
        convert_monuseg(source, tmp_path / "out")
    text = "\n".join(error.value.problems)
    assert f"{one}.tif is without outlines" in text and f"{two}.xml is without a picture" in text
    assert text.count(f"{three}.tif") == 2 and "several files" in text


def test_pictures_that_are_no_rgb(source: Path, tmp_path: Path) -> None:
    first, second = sorted((source / TRAIN_FOLDER / "Tissue Images").iterdir())[:2]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(first)
    second.write_bytes(b"no picture")
    with pytest.raises(DataError) as error:
        convert_monuseg(source, tmp_path / "out")
    assert "mode L, not 8-bit RGB" in error.value.problems[0] and "cannot be read" in error.value.problems[1]


def test_folders_that_do_not_fit(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        convert_monuseg(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither"):
        convert_monuseg(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="test tiles alone"):
        convert_monuseg(source / TEST_FOLDER, tmp_path / "out")
    with pytest.raises(ConfigError, match="empty exists and is not overwritten"):
        convert_monuseg(source, tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        convert_monuseg(source, tmp_path / "file" / "out")
