# SPDX-License-Identifier: Apache-2.0
"""Compare self-activation maps with the true nuclei, before and after their sign is fixed, and append the rows.

Usage::

    python tools/activation_signs.py --csv_file FILE [--dataset_dir DIR --datalist dataset.json] [--seeds 8]
        [--encoder resnet10t --encoder_options '{"channels": [16, 16, 32, 64], "stem_width": 8}']
        [--checkpoints FILE,FILE]

A row is one image, one network (of random weights, or of a checkpoint) and one order. Labels only serve to measure.
"""

from __future__ import annotations

from collections import defaultdict
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import fire

from fewlabel.data import read_datalist
from fewlabel.evidence.activation_signs import SignRow, random_network, read_tiles, sign_rows
from fewlabel.evidence.rows import append_row


def main(
    csv_file: str,
    dataset_dir: str = "",
    datalist: str = "datalist.json",
    phantom: str = "histology",
    lists: str | tuple[str, ...] = ("training",),
    limit: int = 8,
    seeds: int = 8,
    checkpoints: str | tuple[str, ...] = (),
    encoder: str = "res2net101_26w_4s",
    encoder_options: dict[str, Any] | None = None,
    toward: str = "density",
    margin_px: int = 32,
) -> None:
    """Measure networks of random weights, then those of checkpoints, and print a line each.

    Args:
        csv_file: where rows are appended.
        dataset_dir: folder of the data; empty takes phantoms.
        datalist: the data list in it.
        phantom: which phantoms.
        lists: of the data list, separated by commas.
        limit: at most so many images, evenly spaced; 0 takes all.
        seeds: how many random networks, seeds 0, 1, ...
        checkpoints: ``model.pt`` of pretraining stages, separated by commas.
        encoder: a timm model with features at stride 4.
        encoder_options: further arguments of timm for it.
        toward: what fixes the sign: ``density`` or ``hematoxylin``.
        margin_px: mirrored pixels around each image.
    """
    found = read_datalist(dataset_dir, datalist, phantom=phantom)
    names = lists.split(",") if isinstance(lists, str) else lists
    items = [item for name in names for item in getattr(found, name)]
    items = items[:: max(1, len(items) // limit)][:limit] if limit else items
    data = Path(dataset_dir).name or found.source
    tiles = list(read_tiles(items))
    paths = [p for p in (checkpoints.split(",") if isinstance(checkpoints, str) else checkpoints) if p]
    for seed, checkpoint in [*((s, "") for s in range(seeds)), *((0, path) for path in paths)]:
        network = random_network(seed, encoder, encoder_options, checkpoint)
        label = Path(checkpoint).name if checkpoint else f"random {seed}"
        rows = list(sign_rows(network, tiles, network.shallow_layers, toward, margin_px))
        for row in rows:
            values = {"network": label, "encoder": encoder, "data": data, "toward": toward} | row._asdict()
            append_row(csv_file, {name: f"{v:.4f}" if isinstance(v, float) else str(v) for name, v in values.items()})
        print(label, "; ".join(_summary(rows)), flush=True)


def _summary(rows: list[SignRow]) -> list[str]:
    by_order: dict[str, list[SignRow]] = defaultdict(list)
    for row in rows:
        by_order[row.order].append(row)
    return [
        f"{order}: AUC {_mean([r.auc_before for r in some])} -> {_mean([r.auc_after for r in some])}, "
        f"{sum(r.layers_turned for r in some)} of {sum(r.layers for r in some)} maps turned"
        for order, some in by_order.items()
    ]


def _mean(values: list[float]) -> str:
    known = [v for v in values if not isnan(v)]
    return f"{fmean(known):.3f}" if known else "nan"


if __name__ == "__main__":
    fire.Fire(main)
