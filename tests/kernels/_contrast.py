# SPDX-License-Identifier: Apache-2.0
"""What the tests of contrast share: tiny tiles, unit vectors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.kernels._threads import torch_threads
from torch import Tensor
from torch.nn import functional

from fewlabel.kernels.contrast import _tiles


@pytest.fixture(params=[None, 1, 3], ids=["one tile", "many tiles", "many tiles, 3 threads"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test as it is and with tiles so small that even tiny inputs need many, on one thread and on some."""

    def small(length: int, device: torch.device) -> Iterator[slice]:
        return (slice(start, min(start + 7, length)) for start in range(0, length, 7))

    if request.param:
        monkeypatch.setattr(_tiles, "blocks_of", small)
    with torch_threads(request.param or torch.get_num_threads()):
        yield


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)
