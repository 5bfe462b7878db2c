# SPDX-License-Identifier: Apache-2.0
"""Connected components in plain PyTorch, for devices without a kernel of their own: runs, joined in rounds.

A node is a run of equal values in a row, an edge a contact of two runs of neighbor rows. In each round every root hangs
itself under the smallest root that it touches, then all paths are cut short by pointer jumping. A root that stays has
swallowed a neighbor within two rounds, so at most 2 log2(nodes) rounds are needed; a handful is usual. What is left to
do is asked of the device once a round and once a jump.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels.grid import neighbor_steps, overlap

__all__ = ["components", "relabel"]


def components(values: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    """Round-wise form; see :func:`fewlabel.kernels.components.reference.components`."""
    joined = torch.zeros_like(values, dtype=torch.bool)  # with the pixel before it in its row
    joined[..., 1:] = (values[..., 1:] == values[..., :-1]) & (values[..., 1:] != 0)
    opens = (values != 0) & ~joined
    node = opens.flatten().cumsum(0).view(values.shape)  # 1 ... nodes, in raster order; meaningless on background
    parent = torch.arange(int(node[-1, -1, -1, -1]) + 1, device=values.device)
    rows_before = [step for step in neighbor_steps(connectivity) if step != (0, 0, -1)]
    edges = [_contacts(values, joined, node, step) for step in rows_before]
    _join(parent, torch.cat(edges, dim=1))
    return _numbered(values, node, parent)


def _contacts(values: Tensor, joined: Tensor, node: Tensor, step: tuple[int, int, int]) -> Tensor:
    """Return (2, E) nodes that touch one step apart: the first pixel of each stretch along which two runs touch."""
    here, there = overlap(step, values.shape)
    touch = (values[here] == values[there]) & (values[here] != 0)
    first = touch.clone()
    first[..., 1:] &= ~(touch[..., :-1] & joined[here][..., 1:] & joined[there][..., 1:])
    return torch.stack([node[here][first], node[there][first]])


def _join(parent: Tensor, edges: Tensor) -> None:
    """Make each node point to the smallest node of its component."""
    while edges.shape[1]:
        roots = parent[edges]
        low, high = roots.amin(dim=0), roots.amax(dim=0)
        parent.scatter_reduce_(0, high, low, "amin")
        while True:
            above = parent[parent]
            if torch.equal(above, parent):
                break
            parent.copy_(above)
        roots = parent[edges]
        edges = edges[:, roots[0] != roots[1]]


def _numbered(values: Tensor, node: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
    """Number the roots of each image in raster order."""
    ranks = (parent == torch.arange(len(parent), device=parent.device)).cumsum(0) - 1  # node 0 is none
    last = ranks[node[:, -1, -1, -1]]  # of each image
    before = torch.cat([last.new_zeros(1), last[:-1]])
    labels = ranks[parent[node]] - before.view(-1, 1, 1, 1)
    return torch.where(values != 0, labels, 0).int(), (last - before).int()


def relabel(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sorting form without synchronization; see :func:`fewlabel.kernels.components.reference.relabel`."""
    names, order = labels.sort(dim=1, stable=True)
    opens = torch.ones_like(names, dtype=torch.bool)
    opens[:, 1:] = names[:, 1:] != names[:, :-1]
    opens &= names != 0
    first = torch.zeros_like(opens).scatter_(
        1, order, opens
    )  # where a label appears for the first time, in raster order
    ranks = first.cumsum(1, dtype=torch.int32)
    start = torch.arange(names.shape[1], device=names.device).where(opens, 0).cummax(1).values
    numbers = ranks.gather(1, order.gather(1, start)).where(names != 0, 0)
    return torch.zeros_like(ranks).scatter_(1, order, numbers), ranks[:, -1].clone()
