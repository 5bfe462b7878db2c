# SPDX-License-Identifier: Apache-2.0
"""Which process this is, and how processes share the items of a list to be scored."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import DistributedSampler


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and how many there are; (0, 1) without ``torch.distributed``."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def rank_sampler(dataset: Any) -> DistributedSampler | None:
    """Return the sampler that gives every item to exactly one process, none twice to make the shares even.

    A process without any item would wait for ever where metrics are gathered. So a list with fewer items than there
    are processes is seen whole by each of them, which leaves every mean as it is.

    Args:
        dataset: has a length.

    Returns:
        The sampler, or None, which a data loader takes as: all items in order.
    """
    rank, world = rank_and_world()
    if world == 1 or len(dataset) < world:
        return None
    return DistributedSampler(dataset, even_divisible=False, num_replicas=world, rank=rank, shuffle=False)
