# SPDX-License-Identifier: Apache-2.0
"""What the contrast operators must not cost: the N x N matrix, products for frozen keys, time over the dense form."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.kernels._threads import torch_threads
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewlabel.kernels.contrast import all_negative, info_nce, masked_lse

N, C, TEMPERATURE = 9216, 16, 0.07
MIB = 2**20


class Watch(TorchDispatchMode):
    """Count operators and follow the bytes of storages that are made while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        self.alive = {at: entry for at, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The watch sees one thread only; and on one thread a busy machine slows all forms alike."""
    with torch_threads(1):
        yield


def sides(n: int = N, c: int = C) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = functional.normalize(torch.randn(1, n, c, generator=generator), dim=-1)
    k = functional.normalize(q + 0.5 * torch.randn(1, n, c, generator=generator), dim=-1)
    return q.requires_grad_(), k.requires_grad_()


def dense(q: Tensor, k: Tensor) -> Tensor:
    logits = torch.bmm(q, k.transpose(1, 2)) / TEMPERATURE
    return functional.cross_entropy(logits.flatten(0, 1), torch.arange(q.shape[1]))


def exact(q: Tensor, k: Tensor) -> tuple[float, Tensor, Tensor]:
    """Loss and both gradients in float64 from the formula, some rows at a time."""
    q, k = q.detach()[0].double(), k.detach()[0].double()
    n = len(q)
    loss, dq, dk = 0.0, torch.empty_like(q), -q.clone()
    for start in range(0, n, 1024):
        rows = slice(start, start + 1024)
        logits = q[rows] @ k.T / TEMPERATURE
        lse = torch.logsumexp(logits, dim=1)
        loss += float((lse - logits.diagonal(start)).sum())
        softmax = logits.sub_(lse[:, None]).exp_()
        dq[rows] = softmax @ k - k[rows]
        dk += softmax.T @ q[rows]
    return loss / n, dq[None] / (n * TEMPERATURE), dk[None] / (n * TEMPERATURE)


def deviation(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


def test_full_size_info_nce_equals_dense_and_peaks_at_a_few_megabytes() -> None:
    q, k = sides()
    with Watch() as tiled:
        loss = info_nce(q, k, TEMPERATURE)
        grads = torch.autograd.grad(loss, (q, k))
    with Watch() as naive:
        dense_loss = dense(q, k)
        dense_grads = torch.autograd.grad(dense_loss, (q, k))
    assert tiled.peak <= 6 * MIB
    assert naive.peak >= 600 * MIB
    value, *exact_grads = exact(q, k)
    assert loss.item() == pytest.approx(value, rel=1e-6)
    assert loss.item() == pytest.approx(dense_loss.item(), rel=1e-6)
    for got, other, truth in zip(grads, dense_grads, exact_grads, strict=True):
        assert deviation(got, truth) <= 1e-6
        assert deviation(got, other) <= 1e-6 + deviation(other, truth)  # dense float32 is the less exact of the two


def test_the_whole_process_grows_by_a_few_megabytes() -> None:
    """With two threads, and whatever libraries take beside torch's own allocations."""
    script = """if True:
        import resource, torch
        from fewlabel.kernels.contrast import info_nce
        def step(n):
            q, k = (torch.nn.functional.normalize(torch.randn(1, n, 16), dim=-1).requires_grad_() for _ in range(2))
            info_nce(q, k).backward()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
        torch.set_num_threads(2)
        print(-step(1200) + step(9216))
    """
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 32 * 1024


@pytest.mark.parametrize("loss", [info_nce, all_negative])
def test_symmetric_form_is_as_small(loss: Callable[..., Tensor]) -> None:
    q, k = sides(4608)
    with Watch() as watch:
        torch.autograd.grad(loss(q, k, symmetric=True), (q, k))
    assert watch.peak <= 4 * MIB


def test_memory_grows_with_n_and_not_with_n_squared() -> None:
    peaks = []
    for n in (4608, 13824):
        q, k = sides(n, 8)
        y = torch.arange(n)[None] % 5
        with Watch() as watch:
            lse_all, lse_neg = masked_lse(q, k, y, y)
            assert lse_neg is not None
            torch.autograd.grad((lse_neg - lse_all).mean(), (q, k))
        peaks.append(watch.peak)
    fixed = 2 * 576**2 * 4  # two tiles
    assert peaks[1] - fixed <= 3.1 * (peaks[0] - fixed)


def test_a_frozen_key_costs_nothing() -> None:
    q, k = sides(1100)
    frozen, live = k.detach(), k
    for key, products in ((frozen, 0), (live, 4)):  # 2 x 2 tiles are computed again for a live key
        loss = info_nce(q, key)
        with Watch() as watch:
            loss.backward()
        assert watch.calls.get("mm", 0) == products
    with torch.no_grad(), Watch() as watch:
        info_nce(q, k)
    assert "addmm_" not in watch.calls  # no gradient, no mean key


@pytest.mark.slow
def test_tiled_is_not_slower_than_dense() -> None:
    """In turns, so that a busy machine slows both alike; about 12 times faster is what an idle one shows."""
    q, k = sides()

    def milliseconds(loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        start = time.perf_counter()
        torch.autograd.grad(loss(q, k.detach()), q)
        return 1e3 * (time.perf_counter() - start)

    times = [(milliseconds(info_nce), milliseconds(dense)) for _ in range(6)][1:]  # the first warms up
    tiled, naive = (statistics.median(column) for column in zip(*times, strict=True))
    assert tiled <= naive
