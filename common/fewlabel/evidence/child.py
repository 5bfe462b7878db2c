# SPDX-License-Identifier: Apache-2.0
"""What the process of one run does: train, evaluate, and write all its output to a log."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from fewlabel.files import write_json

# Imported before children are forked, because each import of these costs seconds.
PRELOAD = ("fewlabel.evidence.child", "fewlabel.engines", "fewlabel.handlers", "fewlabel.transforms", "fewlabel.data")


@dataclass(frozen=True)
class Job:
    """All that a process needs to know about its run.

    Args:
        bundle: folder of the bundle.
        configs: config files by stem, without ``evaluate``.
        keys: config keys, the places of results among them.
        folder: where results and the log go.
        threads: of torch.
    """

    bundle: Path
    configs: Sequence[str]
    keys: Mapping[str, Any]
    folder: Path
    threads: int


def work(job: Job) -> None:
    """Train and evaluate; ends the process with an exception or exit code when something fails.

    What is there already is not repeated: a finished training does zero epochs, a stopped one continues. The seconds
    that the process took are added up in ``wall.json`` beside the results.

    Args:
        job: the run.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    torch.set_num_threads(job.threads)
    began = time.perf_counter()
    _workflow(job, "training", list(job.configs))
    _workflow(job, "evaluating", [*job.configs, "evaluate"])
    record = job.folder / "wall.json"
    before = json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.is_file() else 0.0
    write_json(record, {"seconds": round(before + time.perf_counter() - began, 1)})


def _workflow(job: Job, run_id: str, configs: Sequence[str]) -> None:
    """Run what ``python -m monai.bundle run`` would run, without a new interpreter."""
    files = "[" + ",".join(f"'configs/{name}.json'" for name in configs) + "]"
    words = ["run", run_id, "--config_file", files, *(w for k, v in job.keys.items() for w in (f"--{k}", str(v)))]
    sys.argv = ["monai.bundle", *words]  # what run.json records
    sys.stdout.write(f"$ python -m monai.bundle {shlex.join(words)}\n")
    sys.stdout.flush()
    os.chdir(job.bundle)
    workflow = ConfigWorkflow(
        [str(job.bundle / "configs" / f"{name}.json") for name in configs],
        run_id=run_id,
        workflow_type="train",
        bundle_root=str(job.bundle),
        **job.keys,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
