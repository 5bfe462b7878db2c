# SPDX-License-Identifier: Apache-2.0
"""Frames per second of an inference, of the network alone and end to end."""

from __future__ import annotations

import time

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.engines.utils import IterationEvents

WARM_UP = 2


class ThroughputHandler:
    """Print frames per second when an evaluator has finished.

    The network's share runs from a batch being on the device to its output being complete; end to end also reads,
    restores and saves. The first two iterations (allocation, algorithm choice) count only end to end. The result is
    kept as ``engine.state.frames_per_second = {"network": ..., "end_to_end": ...}``.
    """

    def __init__(self) -> None:
        self._started = self._begun = 0.0
        self._network_seconds, self._network_frames, self._frames = 0.0, 0, 0

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator; stands first, so that saving is not counted as the network's."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._end)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _start(self, engine: Workflow) -> None:
        self._started = time.perf_counter()
        self._network_seconds, self._network_frames, self._frames = 0.0, 0, 0

    def _begin(self, engine: Workflow) -> None:
        _wait(engine.state.device)
        self._begun = time.perf_counter()

    def _end(self, engine: Workflow) -> None:
        _wait(engine.state.device)
        count = len(engine.state.batch["image"])
        self._frames += count
        if engine.state.iteration > WARM_UP:
            self._network_seconds += time.perf_counter() - self._begun
            self._network_frames += count

    def _report(self, engine: Workflow) -> None:
        whole = self._frames / max(time.perf_counter() - self._started, 1e-9)
        network = self._network_frames / self._network_seconds if self._network_seconds else whole
        engine.state.frames_per_second = {"network": network, "end_to_end": whole}
        if idist.get_rank() == 0:
            print(f"{self._frames} frames: network {network:.1f} frames/s, end to end {whole:.1f} frames/s")  # noqa: T201


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
