# SPDX-License-Identifier: Apache-2.0
"""Contrast against a queue: the formula, what enters in which order, and two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.losses import PredictionLoss, QueueContrastLoss


def rows(seed: int, count: int = 3, channels: int = 4) -> torch.Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def test_value_and_gradient_are_those_of_the_formula() -> None:
    loss = QueueContrastLoss(4, size=8, temperature=0.5)
    loss(rows(0), rows(1))
    loss(rows(2), rows(3))
    queue = F.normalize(torch.cat([rows(1), rows(3)]))
    assert loss.filled == 6
    query = rows(4).requires_grad_()
    found = loss(query, rows(5))
    q, k = F.normalize(query), F.normalize(rows(5))
    positive = ((q * k).sum(1) / 0.5).exp()
    expected = -(positive / (positive + (q @ queue.T / 0.5).exp().sum(1))).log().mean()
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(torch.autograd.grad(found["loss"], query), torch.autograd.grad(expected, query))
    wins = (q * k).sum(1) > (q @ queue.T).amax(1)
    assert found["top1"] == wins.float().mean()


def test_the_oldest_keys_leave_first() -> None:
    loss = QueueContrastLoss(4, size=5)
    for seed in range(4):
        loss(rows(9, count=2), rows(seed, count=2))
    held = F.normalize(torch.cat([rows(s, count=2) for s in range(4)]))
    torch.testing.assert_close(loss.queue, held[[5, 6, 7, 3, 4]])
    loss(rows(9, count=7), rows(8, count=7))  # more than it holds: the last ones stay
    torch.testing.assert_close(loss.queue.roll(-int(loss.position), 0), F.normalize(rows(8, count=7))[-5:])
    assert loss.filled == 5


def test_an_empty_queue_gives_zero_and_evaluation_leaves_it_alone() -> None:
    loss = QueueContrastLoss(4, size=5).eval()
    query = rows(0).requires_grad_()
    found = loss(query, rows(1))["loss"]
    found.backward()
    assert found == 0 and query.grad.isfinite().all() and loss.filled == 0


def test_only_the_query_gets_a_gradient_also_after_the_queue_has_moved_on() -> None:
    loss = QueueContrastLoss(4, size=5)
    loss(rows(0), rows(1))
    query, key = rows(2).requires_grad_(), rows(3).requires_grad_()
    (loss(query, key)["loss"] + loss(query, key)["loss"]).backward()
    assert query.grad.any() and key.grad is None and not loss.queue.requires_grad


def test_prediction() -> None:
    p, z = rows(0).requires_grad_(), rows(1).requires_grad_()
    found = PredictionLoss()(p, z)
    expected = (F.normalize(p) - F.normalize(z.detach())).square().sum(1).mean()
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(*torch.autograd.grad(found["loss"], p), *torch.autograd.grad(expected, p))
    assert PredictionLoss()(torch.eye(3), torch.eye(3))["top1"] == 1
    assert PredictionLoss()(torch.eye(3), torch.eye(3).roll(1, 0))["top1"] == 0


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="queue_size is 0"):
        QueueContrastLoss(4, size=0)
    with pytest.raises(ConfigError, match="global_temperature is 0"):
        QueueContrastLoss(4, temperature=0)


def _rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", world), rank=rank, world_size=world)
    loss = QueueContrastLoss(4, size=7)
    for i in range(3):
        loss(rows(100, count=2), rows(10 * i + rank, count=2))
    torch.save(loss.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_hold_the_same_queue_in_the_order_of_ranks(tmp_path: Path) -> None:
    mp.start_processes(_rank, (2, str(tmp_path)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = QueueContrastLoss(4, size=7)
    for i in range(3):
        alone(rows(100, count=4), torch.cat([rows(10 * i + rank, count=2) for rank in range(2)]))
    assert all(torch.equal(first[name], value) for name, value in alone.state_dict().items())
