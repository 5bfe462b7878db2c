# SPDX-License-Identifier: Apache-2.0
"""Measure what a step of the contrastive pre-training costs, whole and by part, and append the rows.

Usage::

    python tools/pretraining_cost.py --csv_file FILE [--bundle NAME] [--configs train,light] [--device cuda]

All parts are timed in turns in one run, on batches of the bundle's phantoms whose superpixels are cached.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

import fire  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from fewlabel.data.files import listed  # noqa: E402
from fewlabel.losses import gather_points  # noqa: E402
from tools.bench.measure import quartiles, rounds  # noqa: E402
from tools.bench.run import Row, write  # noqa: E402
from tools.throughput import parser_of, stamp_of  # noqa: E402

BUNDLE = "multi_organ_ct_segmentation_lrc"
STEPS: dict[str, dict[str, Any]] = {
    "step, global and local": {},
    "step, global": {"local_weight": 0.0},
    "step, local": {"global_branch": "none"},
}
Calls = dict[str, Callable[[], object]]


def main(
    csv_file: str,
    bundle: str = BUNDLE,
    configs: Any = "train,light",
    device: str = "cpu",
    repeats: int = 30,
    **keys: Any,
) -> None:
    """Time steps and their parts; print and append one row each.

    Args:
        csv_file: where rows are appended.
        bundle: name of a folder in ``bundles/``.
        configs: config files of training by stem, separated by commas.
        device: such as ``cuda`` or ``cpu``.
        repeats: rounds in which each part is timed once.
        **keys: further config keys.
    """
    root, place = ROOT / "bundles" / bundle, torch.device(device)
    stems = listed(configs)
    before = Path.cwd()
    os.chdir(root)
    try:
        with tempfile.TemporaryDirectory() as folder:
            keys |= {"device": device, "output_dir": folder}
            batch, calls = _steps(root, stems, keys, place)
        times = rounds(calls, place, repeats, budget_s=120.0)
    finally:
        os.chdir(before)
    size = tuple(batch["image"].shape)
    stamp = stamp_of(bundle, stems, place) | {"threads": torch.get_num_threads()}
    stamp |= {"keys": _changed(keys), "batch": size[0], "space": "x".join(map(str, size[2:]))}
    whole = quartiles(times[next(iter(STEPS))])[1]
    rows: list[Row] = []
    for name, found in times.items():
        low, middle, high = quartiles(found)
        figures = {"median_ms": middle, "q25_ms": low, "q75_ms": high, "share": middle / whole}
        rows.append(stamp | {"part": name, "repeats": len(found)} | {k: f"{v:.4g}" for k, v in figures.items()})
        print(f"{name}: {middle:.1f} ms, {100 * middle / whole:.0f} %", flush=True)
    write(rows, Path(csv_file))


def _changed(keys: Mapping[str, Any]) -> str:
    """Keys as a row shows them; of a data set its name, wherever it lies."""
    shown = {key: Path(value).name if key == "dataset_dir" else value for key, value in keys.items()}
    return ", ".join(f"{key}={value}" for key, value in shown.items() if key not in ("device", "output_dir"))


def _steps(root: Path, stems: Sequence[str], keys: dict[str, Any], device: torch.device) -> tuple[Any, Calls]:
    """Return a batch and what to time: whole steps, and the parts of the first."""
    calls: Calls = {}
    for number, (name, change) in enumerate(STEPS.items()):
        parser = parser_of(root, stems, keys | change)
        module = parser.get_parsed_content("pretrain::module").to(device)
        optimizer = parser.get_parsed_content("pretrain::optimizer")
        if not number:
            loader = parser.get_parsed_content("pretrain::dataloader")
            (stream,) = next(iter(loader))["labeled"]
            batch = {key: value.to(device) for key, value in stream.items()}
            loaded = iter(_forever(loader))
            parts = _parts(module, batch)
        calls[name] = _step(module, optimizer, batch)
    return batch, calls | parts | {"reading and two views of a batch": lambda: next(loaded)}


def _forever(loader: Any) -> Any:
    epoch = 0
    while True:
        loader.set_epoch(epoch := epoch + 1)
        yield from loader


def _step(module: Any, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> Callable[[], None]:
    def call() -> None:
        optimizer.zero_grad()
        module({"labeled": [batch]})["loss"].backward()
        optimizer.step()
        module.after_step(1)

    return call


def _parts(module: Any, batch: dict[str, Tensor]) -> Calls:
    """Return the parts of a step of both branches; what has a gradient is timed forward and backward."""
    network, heads, loss = module.network, module.heads, module.loss
    images, maps = ([batch[key + end] for end in ("", "_2")] for key in ("image", "regions"))
    maps = [m.squeeze(1).int() for m in maps]
    views, valid = module._sample(images, maps)
    features = _seen(views[0], network.encode(images[0]))
    dense = network.decode(features).detach().requires_grad_()

    def contrast() -> None:
        query = heads["points"](gather_points(dense, views[0].pixels))
        with torch.no_grad():
            key = heads["points"](gather_points(dense, views[1].pixels))
        loss(query, key, valid)["loss"].backward()

    def keys() -> None:
        with torch.no_grad():
            network.decode(_seen(views[1], network.encode(images[1])))

    return {
        "encoder": lambda: network.encode(images[0])[-1].sum().backward(),
        "decoder": lambda: network.decode(features).sum().backward(),
        "encoder and decoder of the keys": keys,
        "regions and voxels drawn": lambda: module._sample(images, maps),
        "projection and contrast of voxels": contrast,
    }


def _seen(view: Any, features: list[Tensor]) -> list[Tensor]:
    """Return what the decoder reads of a view, cut off from the encoder."""
    levels = view.window.crop_features(features) if view.window else features
    return [f.detach().requires_grad_() for f in levels]


if __name__ == "__main__":
    fire.Fire(main)
