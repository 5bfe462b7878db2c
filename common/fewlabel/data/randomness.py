# SPDX-License-Identifier: Apache-2.0
"""Scopes that make the loading of one item depend on its seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which third-party transforms draw from, and restore them afterwards.

    Args:
        seed: in [0, 2^32).
    """
    with kept():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """Leave the global generators of the CPU as they were, whatever is drawn from them meanwhile."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do: sums over several threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
