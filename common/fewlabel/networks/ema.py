# SPDX-License-Identifier: Apache-2.0
"""Let one network's weights follow another's as an exponential moving average."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

Group = tuple[list[Tensor], list[Tensor]]  # of the teacher and of the student
Slot = tuple[dict[str, Tensor], str]  # a module's own parameters or buffers, and one name among them


class MovingAverage:
    """Move every weight of a teacher towards the student's: t <- decay * t + (1 - decay) * s.

    The tensors are matched by name once, here; :meth:`update` then reads them where the networks hold them, so that
    ``to``, ``load_state_dict`` and DistributedDataParallel may come later. Layers that are exchanged later are not
    seen: make another average. The wrappers of ``torch.compile`` and DistributedDataParallel are looked through.

    Args:
        teacher: updated in place. Float32 is what it wants to be, also where the student is not: in bfloat16 the
            thousandth of a weight that decay 0.999 adds is rounded away.
        student: of the same architecture; not changed. It may be on another device or of another type.
        buffers: average the floating-point buffers too, and copy the others. The running statistics of BatchNorm
            then lag as much as the weights that they belong to; copying the student's would pair old weights with
            new statistics. Without it, the teacher keeps the buffers that its own forward passes made.

    Raises:
        ValueError: when the tensors of the two networks do not match.

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780, section 2.

    Example:
        >>> teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> _ = teacher.weight.data.fill_(1), student.weight.data.fill_(2)
        >>> MovingAverage(teacher, student).update(decay=0.75)
        >>> teacher.weight.item()
        1.25
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, buffers: bool = True) -> None:
        self._pairs = list(_matched(teacher, student, "_parameters"))
        if buffers:
            self._pairs += _matched(teacher, student, "_buffers")

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the teacher's tensors once.

        Args:
            decay: share of the old weights that stays, 0 (copy) to 1 (keep); see :func:`ramped_decay`.

        Raises:
            ValueError: when ``decay`` is outside 0 to 1.

        Note:
            One multi-tensor operation per device and type, not one per weight; no synchronization where both networks
            are on one device.
            After ``torch.lerp``: of finite weights, decay 0 copies exactly and decay 1 changes nothing.
        """
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay is {decay}, expected 0 to 1")
        groups: dict[tuple[torch.device, torch.dtype], Group] = defaultdict(lambda: ([], []))
        for (ours, name), (theirs, their_name) in self._pairs:
            old, new = ours[name], theirs[their_name]
            kind = old.device, old.dtype
            olds, news = groups[kind]
            olds.append(old)
            news.append(new if kind == (new.device, new.dtype) else new.to(old))
        for (_, dtype), (olds, news) in groups.items():
            if dtype.is_floating_point or dtype.is_complex:
                torch._foreach_lerp_(olds, news, 1.0 - decay)
            else:
                torch._foreach_copy_(olds, news)


def ema_update(teacher: nn.Module, student: nn.Module, decay: float, buffers: bool = True) -> None:
    """Move every weight of the teacher towards the student's, once: :class:`MovingAverage` for a single update.

    Args:
        teacher: updated in place.
        student: of the same architecture; not changed.
        decay: share of the old weights that stays, 0 (copy) to 1 (keep).
        buffers: average the floating-point buffers too, and copy the others.

    Raises:
        ValueError: when ``decay`` is outside 0 to 1 or the tensors of the two networks do not match.
    """
    MovingAverage(teacher, student, buffers).update(decay)


def ramped_decay(iteration: int, decay: float) -> float:
    """Return min(decay, 1 - 1 / (t + 1)): a plain mean at first, so that the random start is forgotten soon.

    While the ramp holds, the teacher is the arithmetic mean of the students of all updates, and of its own start where
    t counts from 1. Counted from 0, the first update copies the student.

    Args:
        iteration: t, 0 or more.
        decay: share of the old weights that stays in the end.

    Returns:
        The share for this iteration.

    References:
        Tarvainen and Valpola's released code, which counts from 1.

    Example:
        >>> [round(ramped_decay(t, 0.99), 2) for t in (0, 1, 2, 1000)]
        [0.0, 0.5, 0.67, 0.99]
    """
    return min(decay, 1 - 1 / (iteration + 1))


def cosine_decay(iteration: int, total: int, decay: float) -> float:
    """Return 1 - (1 - decay) (1 + cos(pi t / T)) / 2: from ``decay`` up to 1, slowly at both ends.

    Args:
        iteration: t, 0 or more; from T on, the share is 1.
        total: T, iterations of the whole training.
        decay: share of the old weights that stays at first.

    Returns:
        The share for this iteration.

    Raises:
        ValueError: when ``total`` is below 1.

    References:
        Grill et al., BYOL, NeurIPS 2020, arXiv:2006.07733, section 3.2.

    Example:
        >>> [round(cosine_decay(t, 100, 0.99), 4) for t in (0, 50, 100, 200)]
        [0.99, 0.995, 1.0, 1.0]
    """
    if total < 1:
        raise ValueError(f"total is {total}, expected 1 or more")
    return 1 - (1 - decay) * (1 + math.cos(math.pi * min(iteration / total, 1))) / 2


def _matched(teacher: nn.Module, student: nn.Module, kind: str) -> Iterator[tuple[Slot, Slot]]:
    """Match the slots of two networks by name."""
    ours, theirs = dict(_slots(teacher, kind)), dict(_slots(student, kind))
    for name in ours.keys() ^ theirs.keys():
        raise ValueError(f"teacher and student differ: tensor {name} is in one of them only")
    for name, slot in ours.items():
        shape, expected = (tuple(held[key].shape) for held, key in (slot, theirs[name]))
        if shape != expected:
            raise ValueError(f"{name} is {shape} in the teacher, {expected} in the student")
        yield slot, theirs[name]


def _slots(network: nn.Module, kind: str) -> Iterator[tuple[str, Slot]]:
    """Yield name and place of each tensor of a network; one that several layers share comes once."""
    network = network._modules.get("_orig_mod") or network  # of torch.compile
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        network = network.module
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        held: dict[str, Tensor] = getattr(module, kind)
        for key, tensor in held.items():
            if tensor is not None and id(tensor) not in seen:  # None: a layer without bias
                seen.add(id(tensor))
                yield f"{prefix}.{key}".lstrip(".").replace("_orig_mod.", ""), (held, key)
