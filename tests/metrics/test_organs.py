# SPDX-License-Identifier: Apache-2.0
"""Scores of organs against sums and distances written out, with voxels that are no cubes."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scipy import ndimage
from torch.nn import functional as F

from fewlabel.handlers import ScoresHandler
from fewlabel.metrics import OrganDistance, key_organ_dice, organ_columns, organ_scores

NAMES = ["background", "liver", "left kidney", "spleen"]


def meta(values: np.ndarray, spacing: tuple[float, ...], turned: bool = False, file: str = "") -> MetaTensor:
    """A map of classes, (1, *space), on a grid of that spacing, with axes that may be turned about."""
    affine = np.diag([*spacing, *[1.0] * (3 - len(spacing)), 1.0])
    if turned:
        cos, sin = math.cos(0.4), math.sin(0.4)
        affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, -1]]) @ affine[:3, :3]
    return MetaTensor(torch.from_numpy(values)[None].float(), affine=affine, meta={"filename_or_obj": file})


def blobs(seed: int, size: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((4, *size))
    return ndimage.gaussian_filter(noise, (0, *[1.5] * len(size))).argmax(0)


def slow_distance(pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], percentile: float = 95) -> float:
    """Every distance of every surface voxel of one mask to every one of the other."""

    def surface(mask: np.ndarray) -> np.ndarray:
        found = []
        for place in zip(*np.nonzero(mask), strict=True):
            for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
                near = [p + step * (a == axis) for a, p in enumerate(place)]
                if not all(0 <= p < n for p, n in zip(near, mask.shape, strict=True)) or not mask[tuple(near)]:
                    found.append(place)
                    break
        return np.array(found) * np.array(spacing)

    a, b = surface(pred), surface(truth)
    table = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return max(np.percentile(table.min(axis), percentile) for axis in (0, 1))


@pytest.mark.parametrize(
    ("size", "spacing"), [((9, 8, 6), (1.0, 1.0, 1.0)), ((9, 8, 6), (1.7, 0.9, 5.0)), ((14, 12), (0.5, 3.0))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_distances_are_millimeters_of_the_truths_own_grid(
    size: tuple[int, ...], spacing: tuple[float, ...], turned: bool
) -> None:
    pred, truth = blobs(1, size), blobs(2, size)
    expected = [slow_distance(pred == c, truth == c, spacing) for c in (1, 2, 3)]
    found = OrganDistance(4)([meta(pred, (1.0,) * len(size))], [meta(truth, spacing, turned and len(size) == 3)])
    torch.testing.assert_close(found, torch.tensor([expected], dtype=found.dtype), rtol=1e-5, atol=1e-5)


def test_every_case_has_its_own_spacing_and_one_hot_is_the_same() -> None:
    pred, truth, grids = blobs(3, (8, 8, 5)), blobs(4, (8, 8, 5)), [(1.0, 1.0, 4.0), (2.0, 2.0, 8.0)]
    truths = [meta(truth, spacing) for spacing in grids]
    found = OrganDistance(4)([meta(pred, (1.0, 1.0, 1.0))] * 2, truths)
    torch.testing.assert_close(found[1], 2 * found[0])
    one_hot = F.one_hot(torch.from_numpy(pred), 4).movedim(-1, 0).float()
    torch.testing.assert_close(OrganDistance()([one_hot] * 2, truths), found)


def test_a_missed_organ_is_the_diagonal_and_an_absent_one_is_left_out() -> None:
    truth, pred = np.zeros((2, 6, 5, 4), int)
    truth[1:3, 1:3, 1:3], pred[4:, 4:, 3:] = 1, 2
    found = OrganDistance(4)([meta(pred, (1.0,) * 3)], [meta(truth, (3.0, 2.0, 5.0))])[0]
    assert float(found[0]) == pytest.approx(math.hypot(18, 10, 20)) and found[1:].isnan().all()


def test_a_truth_without_grid_or_of_another_size_is_refused() -> None:
    maps = torch.ones(1, 4, 4)
    with pytest.raises(ValueError, match="whose affine says how large voxels are"):
        OrganDistance(2)([maps], [maps])
    with pytest.raises(ValueError, match="one grid"):
        OrganDistance(2)([maps], [torch.ones(1, 4, 5)])
    with pytest.raises(ValueError, match="number of classes"):
        OrganDistance()([maps], [maps])


def cases(one_hot: bool = False) -> list[dict[str, Any]]:
    """Three cases; the spleen is missing in the truth of the second, the third shows no organ."""
    made = []
    for n in range(3):
        pred, truth = blobs(10 + n, (8, 7, 5)), blobs(20 + n, (8, 7, 5))
        if n == 1:
            truth[truth == 3] = 0
        if n == 2:
            truth[:] = 0
        spacing = (1.0, 2.0, 3.0 + n)
        item = {"image": meta(truth, spacing, file=f"case{n}.nii.gz"), "label": meta(truth, spacing)}
        item["pred"] = meta(pred, spacing)
        if one_hot:
            item["pred"] = F.one_hot(torch.from_numpy(pred), 4).movedim(-1, 0).float()
        made.append(item)
    return made


def evaluated(folder: Path, names: list[str] | None, one_hot: bool = False) -> Engine:
    engine = Engine(lambda engine, batch: batch)
    engine.state.metric_details, engine.state.key_metric_name = {}, "mean_dice"
    engine.metric_cmp_fn = lambda a, b: a > b
    for name, metric in {"mean_dice": key_organ_dice(names), **organ_scores(names)}.items():
        metric.attach(engine, name)
    ScoresHandler(folder, "test", columns=organ_columns(NAMES)).attach(engine)
    engine.run([[case] for case in cases(one_hot)])
    return engine


@pytest.mark.parametrize(("names", "one_hot"), [(NAMES, False), (None, True)])
def test_means_are_over_organs_then_cases_and_each_organ_has_a_column(
    tmp_path: Path, names: list[str] | None, one_hot: bool
) -> None:
    scores = {"mean_dice": [], "hd95_mm": []}
    rows = []
    for case in cases():
        pred, truth = (case[key][0].numpy().astype(int) for key in ("pred", "label"))
        there = [c for c in (1, 2, 3) if (truth == c).any()]
        dice = {c: 2 * ((pred == c) & (truth == c)).sum() / ((pred == c).sum() + (truth == c).sum()) for c in there}
        distance = {c: slow_distance(pred == c, truth == c, tuple(case["label"].pixdim.tolist())) for c in there}
        if there:
            scores["mean_dice"].append(np.mean(list(dice.values())))
            scores["hd95_mm"].append(np.mean(list(distance.values())))
        rows.append([part.get(c, math.nan) for part in (dice, distance) for c in (1, 2, 3)])
    engine = evaluated(tmp_path, names, one_hot)
    for name, values in scores.items():
        assert engine.state.metrics[name] == pytest.approx(np.mean(values), rel=1e-5)
    with (tmp_path / "metrics_per_case.csv").open() as stream:
        head, *table = csv.reader(stream)
    organs = ["liver", "left_kidney", "spleen"]
    assert head == ["case", *(f"dice_{o}" for o in organs), *(f"hd95_mm_{o}" for o in organs)]
    np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in table], rows, rtol=1e-4)
