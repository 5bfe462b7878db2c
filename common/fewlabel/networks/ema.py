# SPDX-License-Identifier: Apache-2.0
"""Let one network's weights follow another's as an exponential moving average."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float, buffers: bool = True) -> None:
    """Move every weight of the teacher towards the student's: t <- decay * t + (1 - decay) * s.

    With ``buffers``, the running statistics of BatchNorm are averaged by the same rule, so that they lag as much as
    the weights that they belong to; copying the student's would pair old weights with new statistics. Counters and
    other integer buffers are copied. Without it, the teacher keeps the buffers that its own forward passes made.

    Args:
        teacher: updated in place.
        student: of the same architecture; not changed.
        decay: share of the old weights that stays, 0 (copy) to 1 (keep).
        buffers: average the floating-point buffers too, and copy the others.

    Raises:
        ValueError: when ``decay`` is outside 0 to 1 or the tensors of the two networks do not match.

    Note:
        One multi-tensor operation per device and dtype, not one per weight. After ``torch.lerp``, decay 0 copies
        exactly and decay 1 changes nothing.

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780, section 2.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay is {decay}, expected 0 to 1")
    pairs = list(_pairs(teacher.named_parameters(), student.named_parameters()))
    if buffers:
        pairs += _pairs(teacher.named_buffers(), student.named_buffers())
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for old, new in pairs:
        if old.is_floating_point():
            group = groups[old.device, old.dtype]
            group[0].append(old)
            group[1].append(new)
        else:
            old.copy_(new)
    for olds, news in groups.values():
        torch._foreach_lerp_(olds, news, 1.0 - decay)


def _pairs(
    teacher: Iterable[tuple[str, Tensor]], student: Iterable[tuple[str, Tensor]]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Match the tensors of two networks by name."""
    ours, theirs = dict(teacher), dict(student)
    for name in ours.keys() ^ theirs.keys():
        raise ValueError(f"teacher and student differ: tensor {name} is in one of them only")
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} in the teacher, {tuple(theirs[name].shape)} in the student"
            )
        yield tensor, theirs[name]
