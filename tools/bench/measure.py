# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of a call, and the speeds of the machine that bound it."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from fewlabel.machine import processor
from tools.bench.case import Work

Call = Callable[[], object]


def milliseconds(call: Call, device: torch.device) -> float:
    """Return the wall time of one call, the device synchronized before and after."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return 1e3 * (time.perf_counter() - start)


def queued_milliseconds(call: Call, device: torch.device) -> float:
    """Return the time of a call among others that the host does not wait for, as in training.

    Launches of the next call overlap with the work of this one, so that a long kernel hides them. NaN on a CPU.

    Args:
        call: has been called before.
        device: whose queue it goes to.
    """
    if device.type != "cuda":
        return math.nan
    count = max(3, min(100, math.ceil(30 / milliseconds(call, device))))
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / count


def rounds(calls: Mapping[str, Call], device: torch.device, repeats: int, budget_s: float) -> dict[str, list[float]]:
    """Time calls in turns, so that noise of a shared machine falls on all of them alike.

    Each round has an order of its own. A timed call follows one of its own, as in training, and so finds caches and
    free memory as it leaves them itself: what a large alternative has returned to the system costs many times as much
    to get again.

    Args:
        calls: what to time, by name.
        device: what to synchronize.
        repeats: most rounds. Of up to three, no call follows one of its own, and nothing warms up.
        budget_s: no new round starts once this many seconds have gone and five rounds are done.

    Returns:
        Milliseconds by name, one entry per round.
    """
    is_short = repeats > 3
    times: dict[str, list[float]] = {name: [] for name in calls}
    start, shuffle = time.perf_counter(), random.Random(0).shuffle
    order = list(calls.items())
    for done in range(repeats):
        if done >= 5 and time.perf_counter() - start > budget_s:
            break
        shuffle(order)
        for name, call in order:
            if is_short:
                call()
            times[name].append(milliseconds(call, device))
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return by how much a call raises the bytes that torch's allocator has handed out, at most."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda e: (e["ts"], e["args"]["Ev Idx"])):
        current += int(event["args"]["Bytes"])
        peak = max(peak, current)
    return peak


class Machine:
    """The device, its name, and its speeds, measured with plain torch operators.

    Attributes:
        gflop_per_s: of a large product of matrices of the type last measured.
        gexp_per_s: of ``exp2`` on numbers in cache; of a GPU what its multiprocessors can do, as a separate kernel is
            bound by its memory.
        gbyte_per_s: of a copy out of cache, reads and writes.
    """

    gflop_per_s = gexp_per_s = gbyte_per_s = math.nan

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        self.threads = 0 if device.type == "cuda" else torch.get_num_threads()

    def measure(self, dtype: torch.dtype = torch.float32) -> None:
        """Measure the speeds as they are now: on a shared machine they change from minute to minute.

        On a CPU each is the speed of one thread times the number of threads, which real code cannot exceed.

        Args:
            dtype: of the product; float32 is computed as such, not in TF32.
        """
        side, small, large = (8192, 2**20, 2**28) if self.device.type == "cuda" else (512, 2**17, 2**22)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            a, b, c = (self._random(side, side).to(dtype) for _ in range(3))
            product = self._best(lambda: torch.mm(a, b, out=c))
            x, y = self._random(small), self._random(small)
            exponentials = self._best(lambda: torch.exp2(x, out=y))
            v, w = self._random(large), self._random(large)
            copy = self._best(lambda: w.copy_(v))
        finally:
            torch.set_num_threads(before)
        threads = max(1, self.threads)
        self.gflop_per_s = 2e-9 * side**3 / product * threads
        self.gexp_per_s = _gexp_per_s(self.device) or 1e-9 * small / exponentials * threads
        self.gbyte_per_s = 8e-9 * large / copy * threads

    def bound_ms(self, work: Work) -> float:
        """Return the time below which this machine cannot do the work: the slowest resource, the others hidden."""
        seconds = work.gflop / self.gflop_per_s, work.gexp / self.gexp_per_s, work.gbyte / self.gbyte_per_s
        return 1e3 * max(seconds)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=self.device)

    def _best(self, call: Call) -> float:
        """Seconds of the fastest of 20 calls."""
        return min(milliseconds(call, self.device) for _ in range(20)) / 1e3


def _gexp_per_s(device: torch.device) -> float:
    """Exponentials of a GPU, in 1e9 a second: 16 a clock and multiprocessor since Volta; 0 for a CPU."""
    if device.type != "cuda":
        return 0.0
    properties = torch.cuda.get_device_properties(device)
    return 16e-6 * properties.multi_processor_count * int(getattr(properties, "clock_rate", 0))


def commit(root: Path) -> str:
    """Return the short commit of the working tree, with ``+`` where kernels or cases differ from it."""
    git = ["git", "-C", str(root)]
    found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        return "unknown"
    paths = ["common/fewlabel/kernels", "tools/bench", ":!tools/bench/results"]
    dirty = subprocess.run([*git, "status", "--porcelain", "--", *paths], capture_output=True, text=True)
    return found.stdout.strip() + ("+" if dirty.stdout.strip() else "")
