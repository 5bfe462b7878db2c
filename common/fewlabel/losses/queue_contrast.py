# SPDX-License-Identifier: Apache-2.0
"""Contrast of images against a queue of earlier ones, on any number of processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError


class QueueContrastLoss(nn.Module):
    """InfoNCE of two views of an image, with the keys of earlier batches as negatives.

    loss = mean_b -log( exp(q_b . k_b / t) / (exp(q_b . k_b / t) + sum_j exp(q_b . queue_j / t)) ), all unit vectors.

    The queue begins empty, not with noise: the first batch has loss 0, and the negatives are always real images.
    After each training step the keys of all processes enter it in the order of their ranks and push out the oldest
    ones, so that it is the same on all of them. It is part of the state dict.

    Args:
        channels: D, length of the vectors.
        size: how many keys the queue holds.
        temperature: t, > 0.

    Raises:
        ConfigError: when ``size`` or ``temperature`` is out of range.

    Note:
        B x size similarities in float32, also inside autocast. Every process must have the same batch size.

    References:
        He et al., Momentum contrast, CVPR 2020, arXiv:1911.05722, eq. 1 and algorithm 1.

    Example:
        >>> loss = QueueContrastLoss(channels=2, size=4, temperature=1.0)
        >>> first = loss(torch.eye(2), torch.eye(2))["loss"].item()
        >>> first, round(loss(torch.eye(2), torch.eye(2))["loss"].item(), 4)  # log(1 + (e + 1) / e)
        (0.0, 0.862)
    """

    queue: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, channels: int, size: int = 16384, temperature: float = 0.2) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"queue_size is {size}: give 1 or more")
        if temperature <= 0:
            raise ConfigError(f"global_temperature is {temperature}: give a number above 0")
        self.temperature = temperature
        self.register_buffer("queue", torch.zeros(size, channels))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def forward(self, query: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Return the loss; while training, let the keys into the queue.

        Args:
            query: (B, D), floating, of any length.
            key: (B, D), the other view of each image; receives no gradient.

        Returns:
            Scalars: ``loss``, differentiable in ``query``, and ``top1``, the share of images whose other view is more
            similar than anything in the queue.
        """
        with torch.autocast(query.device.type, enabled=False):
            q, k = F.normalize(query.float(), dim=1), F.normalize(key.detach().float(), dim=1)
            empty = torch.arange(len(self.queue), device=self.queue.device) >= self.filled
            negatives = (q @ self.queue.clone().T).masked_fill(empty, -torch.inf)  # a copy: the queue changes below
            logits = torch.cat([(q * k).sum(dim=1, keepdim=True), negatives], dim=1) / self.temperature
            target = torch.zeros(len(q), dtype=torch.long, device=q.device)
            loss = F.cross_entropy(logits, target)
        if self.training:
            self.enqueue(k)
        return {"loss": loss, "top1": (logits.argmax(dim=1) == 0).float().mean()}

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys by those of all processes.

        Args:
            keys: (B, D) of this process; where all together are more than the queue holds, the last ones stay.
        """
        size = len(self.queue)
        keys = gathered(keys)
        slots = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.queue.index_copy_(0, slots[-size:], keys[-size:].to(self.queue.dtype))
        self.position.add_(len(keys)).remainder_(size)
        self.filled.add_(len(keys)).clamp_(max=size)


class PredictionLoss(nn.Module):
    """Squared distance of unit vectors, prediction and target: 2 - 2 cos, mean over images.

    References:
        Grill et al., BYOL, NeurIPS 2020, arXiv:2006.07733, eq. 2. SimSiam's (Chen and He, CVPR 2021, arXiv:2011.10566,
        eq. 1) is half of it less one: the same gradients, half as long.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            prediction: (B, D), floating, of any length.
            target: (B, D); receives no gradient.

        Returns:
            Scalars: ``loss``, 0 to 4, differentiable in ``prediction``, and ``top1``, the share of images whose target
            is the most similar one in the batch.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            p, z = F.normalize(prediction.float(), dim=1), F.normalize(target.detach().float(), dim=1)
            cosine = p @ z.T
        own = torch.arange(len(p), device=p.device)
        return {"loss": 2 - 2 * cosine.diagonal().mean(), "top1": (cosine.argmax(dim=1) == own).float().mean()}


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all processes in the order of their ranks; those of this one where there is no other.

    Args:
        rows: (B, D), of one shape on all processes; no gradient flows.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
