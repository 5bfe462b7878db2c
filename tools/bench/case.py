# SPDX-License-Identifier: Apache-2.0
"""What a benchmark case consists of.

A new kernel adds one file to ``tools/bench/cases`` with ``CASE = Case(...)``; the runner does the rest. All
implementations of a case get the same inputs, and their results are compared with those of the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Implementation = Callable[..., Tensor]


@dataclass(frozen=True)
class Work:
    """The least that any implementation must do for a problem; the bound is derived from it.

    Attributes:
        gflop: floating-point operations, in 1e9; a multiply-add is two.
        gexp: exponentials, in 1e9.
        gbyte: bytes of inputs read and outputs written once, in 1e9.
        dtype: of the products; a GPU has another rate for each.
    """

    gflop: float
    gexp: float = 0.0
    gbyte: float = 0.0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Problem:
    """One row of the table for each implementation.

    Attributes:
        columns: what identifies the problem in the CSV (mode, sizes, dtype); the same keys throughout a case.
        work: the least work.
        make: builds the inputs on a device; those that require a gradient get one.
        implementations: overrides the case's where a problem is computed by other calls.
        backward: time forward and backward together, else the forward pass without gradients.
        skip: names of implementations that this problem leaves out (too large, say).
        device: ``"cpu"`` or ``"cuda"`` where the problem is meant for one of them alone.
        compared: makes of a result and the inputs what is compared with the baseline's, outside of the timing; where
            results are drawn at random, say.
        rounds: most rounds of timing; below 4 there is no warm-up beyond the calls that measure values and memory.
    """

    columns: Mapping[str, str | int]
    work: Work
    make: Callable[[torch.device], tuple[Tensor, ...]]
    implementations: Mapping[str, Implementation]
    backward: bool = False
    skip: Sequence[str] = field(default=())
    device: str | None = None
    compared: Callable[..., Tensor] | None = None
    rounds: int = 30


@dataclass(frozen=True)
class Case:
    """A kernel, its alternatives, and the problems on which they are compared.

    Attributes:
        name: the file name of the case.
        baseline: the implementation to which ratios and deviations refer.
        problems: smallest first.
    """

    name: str
    baseline: str
    problems: Sequence[Problem]
