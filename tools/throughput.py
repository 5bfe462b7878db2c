# SPDX-License-Identifier: Apache-2.0
"""Measure how many training steps and inference frames a second a bundle does on this machine, and append the rows.

Usage::

    python tools/throughput.py --csv_file FILE [--bundle NAME] [--configs train] [--device cuda] [--num_workers 8]

Training is the bundle's own, reading and augmentation included, on its phantoms. Inference is the network alone, on
frames that are on the device already, in float32 (not TF32), under bfloat16 autocast, and compiled as well.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

import fire  # noqa: E402
import torch  # noqa: E402
from ignite.engine import Engine, Events  # noqa: E402
from monai.bundle import ConfigParser, ConfigWorkflow  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tools.bench.measure import Machine, commit, milliseconds  # noqa: E402
from tools.bench.run import write  # noqa: E402

BUNDLE = "endoscopic_tool_segmentation_mms"
BATCHES = (1, 8)
Row = dict[str, str | int | float]


def main(
    csv_file: str,
    bundle: str = BUNDLE,
    configs: Any = "train",
    variants: Any = ("", "mean_teacher", "baseline"),
    device: str = "cuda",
    epochs: int = 3,
    epoch_length: int = 40,
    repeats: int = 30,
    **keys: Any,
) -> None:
    """Measure training, then inference; print and append one row each.

    Args:
        csv_file: where rows are appended.
        bundle: name of a folder in ``bundles/``.
        configs: config files of training by stem, separated by commas.
        variants: config files that lie over them in turn; empty is the method, ``baseline`` plain supervision.
        device: such as ``cuda`` or ``cpu``.
        epochs: of each training, 2 at least; the first warms up.
        epoch_length: steps of an epoch.
        repeats: timed calls of the network.
        **keys: further config keys, such as ``--num_workers 8``.
    """
    root, place, stems = ROOT / "bundles" / bundle, torch.device(device), _listed(configs)
    keys |= {"device": device, "max_epochs": epochs, "epoch_length": epoch_length}
    stamp = stamp_of(bundle, stems, place)
    rows = chain(training(root, stems, _listed(variants), keys), inference(root, stems, place, keys, repeats))
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        write([stamp | row], Path(csv_file))


def stamp_of(bundle: str, stems: Sequence[str], device: torch.device) -> Row:
    """Return the columns that say when, where and of what a row is.

    Args:
        bundle: name of its folder.
        stems: config files.
        device: what was measured.
    """
    stamp: Row = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"), "commit": commit(ROOT)}
    return stamp | {
        "device": Machine(device).name,
        "torch": torch.__version__,
        "bundle": bundle,
        "configs": "+".join(stems),
    }


def parser_of(root: Path, stems: Sequence[str], keys: Mapping[str, Any]) -> ConfigParser:
    """Return the merged configs of a bundle with some keys changed; those that it lacks are passed over.

    Args:
        root: folder of the bundle.
        stems: config files, in their order.
        keys: config keys.
    """
    parser = ConfigParser()
    parser.read_config([str(root / "configs" / f"{stem}.json") for stem in stems])
    parser.update({key: value for key, value in keys.items() if key in parser.config} | {"bundle_root": str(root)})
    return parser


def training(root: Path, stems: Sequence[str], variants: Sequence[str], keys: Mapping[str, Any]) -> Iterator[Row]:
    """Yield steps per second of the bundle's training, one row a variant.

    Args:
        root: folder of the bundle.
        stems: config files.
        variants: see :func:`main`.
        keys: config keys.
    """
    for variant in variants:
        overlay = [variant] if variant not in ("", "baseline") else []
        extra = {"method_enabled": False} if variant == "baseline" else {}
        with tempfile.TemporaryDirectory() as folder:
            place = {"output_dir": folder, "ckpt_dir": f"{folder}/models", "val_interval": 1000}
            seconds, peak, sizes = _epochs(root, [*stems, *overlay], {**keys, **extra, **place})
        steps = int(keys["epoch_length"])
        yield _row("training", variant or "method", "amp", sizes, [steps / s for s in seconds], peak)


def inference(
    root: Path, stems: Sequence[str], device: torch.device, keys: Mapping[str, Any], repeats: int
) -> Iterator[Row]:
    """Yield frames per second of the network, one row for each precision and batch.

    Args:
        root: folder of the bundle.
        stems: config files.
        device: where it runs.
        keys: config keys.
        repeats: timed calls.
    """
    parser = parser_of(root, stems, keys)
    network = parser.get_parsed_content("network_def").to(device).eval()
    height, width = parser["spatial_size"]
    for precision, call in _forms(network, device).items():
        for batch in BATCHES:
            images = torch.randn(batch, 3, height, width, device=device)
            with torch.inference_mode():
                for _ in range(3):
                    call(images)
                _reset(device)
                times = [milliseconds(lambda: call(images), device) for _ in range(repeats)]  # noqa: B023
            sizes = {"batch": batch, "height": height, "width": width, "workers": 0}
            yield _row("inference", "network", precision, sizes, [1e3 * batch / t for t in times], _peak(device))


def _forms(network: nn.Module, device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """The network as it is, in bfloat16, and compiled."""
    compiled = torch.compile(network)

    def half(call: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return call(images)

    return {
        "float32": network,
        "bfloat16": lambda images: half(network, images),
        "bfloat16, compiled": lambda images: half(compiled, images),
    }


def _epochs(root: Path, stems: Sequence[str], keys: Mapping[str, Any]) -> tuple[list[float], float, Row]:
    """Seconds of each epoch but the first, peak memory, and what was trained on."""
    before = Path.cwd()
    os.chdir(root)
    try:
        files = [str(root / "configs" / f"{stem}.json") for stem in stems]
        workflow = ConfigWorkflow(files, workflow_type="train", run_id="training", bundle_root=str(root), **keys)
        workflow.initialize()
        parser = workflow.parser
        trainer: Engine = parser.get_parsed_content("train#trainer")
        device = torch.device(keys["device"])
        marks: list[float] = []

        def mark(_: Engine) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        trainer.add_event_handler(Events.EPOCH_STARTED, mark)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda _: _reset(device))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, mark)
        trainer.run()
    finally:
        os.chdir(before)
    height, width = parser["spatial_size"]
    workers = parser.get_parsed_content("num_workers")
    sizes: Row = {"batch": parser["batch_size"], "height": height, "width": width, "workers": workers}
    seconds = [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]
    return seconds[1:], _peak(device), sizes


def _row(what: str, variant: str, precision: str, sizes: Row, rates: list[float], peak: float) -> Row:
    """Median and extremes of a rate."""
    figures = {"per_second": statistics.median(rates), "slowest": min(rates), "fastest": max(rates), "peak_mib": peak}
    short: Row = {name: float(f"{value:.4g}") for name, value in figures.items()}
    return {"what": what, "variant": variant, "precision": precision, **sizes, "repeats": len(rates), **short}


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    """MiB that PyTorch held at most; nan on a CPU, where nothing counts them."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")


def _listed(value: Any) -> list[str]:
    return value.split(",") if isinstance(value, str) else [str(part) for part in value]


if __name__ == "__main__":
    fire.Fire(main)
