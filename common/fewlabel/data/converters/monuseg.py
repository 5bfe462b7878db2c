# SPDX-License-Identifier: Apache-2.0
"""MoNuSeg: H&E tiles as TIFF with nuclei outlined in Aperio ImageScope XML.

The training data exist in two revisions. The first has 30 tiles, those of Kumar et al. 2017; later downloads under the
same name hold seven more. The 14 test tiles were published after the challenge of 2018. Names tell them apart, and
``manifest.json`` says what was found.

References:
    N. Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology, IEEE
    TMI 36(7), 2017. N. Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39(5), 2020.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fewlabel.data.converters._folder import new_folder, source_folder, write_manifest
from fewlabel.data.converters.imagescope import Annotation, read_annotation
from fewlabel.data.converters.polygons import instance_map
from fewlabel.data.datalist import DEFAULT
from fewlabel.data.files import natural, relative
from fewlabel.data.folders import datalist_from_folders
from fewlabel.errors import ConfigError, DataError
from fewlabel.files import write_json

TRAINING = frozenset(
    """
    TCGA-18-5592-01Z-00-DX1 TCGA-21-5784-01Z-00-DX1 TCGA-21-5786-01Z-00-DX1 TCGA-38-6178-01Z-00-DX1
    TCGA-49-4488-01Z-00-DX1 TCGA-50-5931-01Z-00-DX1 TCGA-A7-A13E-01Z-00-DX1 TCGA-A7-A13F-01Z-00-DX1
    TCGA-AR-A1AK-01Z-00-DX1 TCGA-AR-A1AS-01Z-00-DX1 TCGA-AY-A8YK-01A-01-TS1 TCGA-B0-5698-01Z-00-DX1
    TCGA-B0-5710-01Z-00-DX1 TCGA-B0-5711-01Z-00-DX1 TCGA-CH-5767-01Z-00-DX1 TCGA-DK-A2I6-01A-01-TS1
    TCGA-E2-A14V-01Z-00-DX1 TCGA-E2-A1B5-01Z-00-DX1 TCGA-G2-A2EK-01A-02-TSB TCGA-G9-6336-01Z-00-DX1
    TCGA-G9-6348-01Z-00-DX1 TCGA-G9-6356-01Z-00-DX1 TCGA-G9-6362-01Z-00-DX1 TCGA-G9-6363-01Z-00-DX1
    TCGA-HE-7128-01Z-00-DX1 TCGA-HE-7129-01Z-00-DX1 TCGA-HE-7130-01Z-00-DX1 TCGA-KB-A93J-01A-01-TS1
    TCGA-NH-A8F7-01A-01-TS1 TCGA-RD-A8N9-01A-01-TS1
    """.split()
)
"""The 30 training tiles of the first revision."""

ADDED = frozenset(
    """
    TCGA-BC-A217-01Z-00-DX1 TCGA-F9-A8NY-01Z-00-DX1 TCGA-FG-A87N-01Z-00-DX1 TCGA-MH-A561-01Z-00-DX1
    TCGA-UZ-A9PJ-01Z-00-DX1 TCGA-UZ-A9PN-01Z-00-DX1 TCGA-XS-A8TJ-01Z-00-DX1
    """.split()
)
"""The seven training tiles that only the later revision has."""

TEST = frozenset(
    """
    TCGA-2Z-A9J9-01A-01-TS1 TCGA-44-2665-01B-06-BS6 TCGA-69-7764-01A-01-TS1 TCGA-A6-6782-01A-01-BS1
    TCGA-AC-A2FO-01A-01-TS1 TCGA-AO-A0J2-01A-01-BSA TCGA-CU-A0YN-01A-02-BSB TCGA-EJ-A46H-01A-03-TSC
    TCGA-FG-A4MU-01B-01-TS1 TCGA-GL-6846-01A-01-BS1 TCGA-HC-7209-01A-01-TS1 TCGA-HT-8564-01Z-00-DX1
    TCGA-IZ-8196-01A-01-BS1 TCGA-ZF-A9R5-01A-01-TS1
    """.split()
)
"""The 14 test tiles of 2018."""

PATIENT = r"^(TCGA-\w+-\w+|.+)"
LICENCE = "CC BY-NC-SA 4.0"
RULE = "a pixel in several outlines belongs to the one that covers the fewest pixels, of equal ones to the later"


def revision(names: Collection[str]) -> str:
    """Say which revision of MoNuSeg some tiles are.

    Args:
        names: stems of the files.

    Example:
        >>> revision(TRAINING | TEST)
        'training of the first revision (30 of 30, without the 7 added later), 14 of 14 test tiles of 2018'
    """
    first, added, test = (len(known.intersection(names)) for known in (TRAINING, ADDED, TEST))
    parts = []
    if added:
        parts.append(f"training of the later revision ({first + added} of 37, {added} of the 7 added)")
    elif first:
        parts.append(f"training of the first revision ({first} of 30, without the 7 added later)")
    if test:
        parts.append(f"{test} of 14 test tiles of 2018")
    if other := len(names) - first - added - test:
        parts.append(f"{other} of unknown name{'s' * (other > 1)}, taken as training")
    return ", ".join(parts)


def convert_monuseg(
    source: str | Path, output: str | Path, validation: float | str | Sequence[str] = 0.2, seed: int = 0
) -> dict[str, Any]:
    """Convert tiles and outlines; the 14 known test tiles become ``test``, all others are for training.

    Args:
        source: folder with ``*.tif`` and ``*.xml`` of the same stems in it or below, as the archives unpack.
        output: folder to make: ``images`` (RGB PNG, the same pixels), ``labels`` (uint16 PNG, see
            :func:`fewlabel.data.converters.instance_map`), ``datalist.json`` (``group`` is the patient,
            ``microns_per_pixel`` where the XML states it) and ``manifest.json``.
        validation: share of the training tiles, as whole patients, or names of patients.
        seed: of the draw of patients.

    Returns:
        ``{"revision": ..., "training": n, "validation": n, "test": n, "nuclei": n, "lost": n}``; ``lost`` counts
        outlines that left no pixel, which the manifest names.

    Raises:
        ConfigError: no such folder, an ``output`` that exists, or nothing to train on.
        DataError: listing files without a partner, double names, and files that cannot be read.
    """
    root = source_folder(source)
    pairs = _pairs(root)
    stems = set(pairs)
    if stems <= TEST:
        raise ConfigError(f"--source {root} holds test tiles alone: name a folder that holds the training data as well")
    with new_folder(output, "images", "labels") as draft:
        facts = _convert_all(draft, pairs)
        lists = datalist_from_folders(
            draft / "images",
            draft / "labels",
            validation=validation,
            test=[_patient(stem) for stem in sorted(stems & TEST)],
            group_pattern=PATIENT,
            group_key="group",
            seed=seed,
            root=draft,
        )
        del lists["root"]
        for item in (item for items in lists.values() for item in items):
            if (spacing := facts[Path(item["image"]).stem]["microns_per_pixel"]) is not None:
                item["microns_per_pixel"] = spacing
        write_json(draft / DEFAULT, {"name": "MoNuSeg", "licence": LICENCE, **lists})
        about = {"converter": "monuseg", "revision": revision(stems), "overlaps": RULE, "licence": LICENCE}
        write_manifest(draft, about, root, [path for pair in pairs.values() for path in pair], facts)
    counts = {name: len(items) for name, items in lists.items() if name != "unlabeled"}
    nuclei, lost = sum(f["nuclei"] for f in facts.values()), sum(len(f["lost"]) for f in facts.values())
    return {"revision": revision(stems), **counts, "nuclei": nuclei, "lost": lost}


def _patient(name: str) -> str:
    return str(re.findall(PATIENT, name)[0])


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return picture and outlines by stem, or list what has no partner and what there is twice."""
    found: dict[str, dict[str, list[Path]]] = {"picture": {}, "xml": {}}
    for path in sorted(root.rglob("*"), key=natural):
        below = path.relative_to(root).parts
        kind = {".tif": "picture", ".tiff": "picture", ".xml": "xml"}.get(path.suffix.lower())
        if kind and path.is_file() and not any(part.startswith((".", "__MACOSX")) for part in below):
            found[kind].setdefault(path.stem, []).append(path)
    pictures, outlines = found["picture"], found["xml"]
    if not pictures and not outlines:
        raise ConfigError(f"--source {root} holds neither *.tif nor *.xml: unpack the archives of MoNuSeg there")
    double = [paths for files in found.values() for paths in files.values() if len(paths) > 1]
    problems = [f"{', '.join(relative(p, root) for p in paths)}: one name, several files; keep one" for paths in double]
    for mine, other, missing in ((pictures, outlines, "outlines (*.xml)"), (outlines, pictures, "a picture (*.tif)")):
        alone = sorted(mine.keys() - other.keys(), key=natural)
        problems += [f"{relative(mine[stem][0], root)} is without {missing} of that name" for stem in alone]
    if problems:
        raise DataError(problems)
    return {stem: (pictures[stem][0], outlines[stem][0]) for stem in pictures}


def _convert_all(folder: Path, pairs: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    facts, problems = {}, []
    for stem, (picture, xml) in pairs.items():
        try:
            facts[stem] = _convert(folder, stem, _read_picture(picture), read_annotation(xml))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return facts


def _read_picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise DataError([f"{path} is a picture of mode {image.mode}, not 8-bit RGB; convert it first"])
            return image.convert("RGB")
    except OSError as error:
        raise DataError([f"{path} cannot be read as a picture ({error}); download it again"]) from None


def _convert(folder: Path, stem: str, image: Image.Image, annotation: Annotation) -> dict[str, Any]:
    """Write one picture with its map and return what the manifest says of it."""
    labels, lost, shared = instance_map(annotation.outlines, (image.height, image.width))
    image.save(folder / "images" / f"{stem}.png")
    Image.fromarray(labels).save(folder / "labels" / f"{stem}.png")
    return {
        "size": [image.height, image.width],
        "microns_per_pixel": annotation.microns_per_pixel,
        "nuclei": int(labels.max()),
        "lost": [annotation.regions[k] for k in lost],
        "negative": annotation.negative,
        "shared_px": shared,
    }
