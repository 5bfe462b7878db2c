# SPDX-License-Identifier: Apache-2.0
"""Moving average of a network: multi-tensor against a Python loop, ignite's EMAHandler and torch's AveragedModel.

Columns: the network (``unet``: that of Min-Max Similarity in its light profile; ``resnet50``), its floating-point
tensors, weights and running statistics, and N, their entries. All forms average both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fewlabel.networks import EncoderUNet, MovingAverage, ema_update
from tools.bench.case import Case, Implementation, Problem, Work

DECAY = 1e-6  # the costs do not depend on it; so small a share leaves repeated calls with the same result
Form = Callable[[nn.Module, nn.Module], tuple[nn.Module, Callable[[], object]]]

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": partial(EncoderUNet, encoder="resnet18d", encoder_options={"channels": [16, 32, 64, 128], "stem_width": 8}),
    "resnet50": partial(timm.create_model, "resnet50"),
}


def _matched_once(teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
    return teacher, partial(MovingAverage(teacher, student).update, DECAY)


def _matched_anew(teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
    return teacher, partial(ema_update, teacher, student, DECAY)


def _averaged_model(teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
    model = AveragedModel(teacher, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    model.n_averaged.fill_(1)  # its first update would copy
    return model.module, partial(model.update_parameters, student)


def _ignite(teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
    handler = EMAHandler(student, momentum=1 - DECAY, handle_buffers="update")
    engine = Engine(lambda engine, batch: None)
    engine.state.momentum = handler.momentum
    return handler.ema_model, partial(handler._update_ema_model, engine, "momentum")


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _loop(teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
    def update() -> None:
        """Move weights and statistics one by one, copy counters: what most code bases do."""
        with torch.no_grad():
            for ours, theirs in zip(_tensors(teacher), _tensors(student), strict=True):
                if ours.is_floating_point():
                    ours.mul_(DECAY).add_(theirs, alpha=1 - DECAY)
                else:
                    ours.copy_(theirs)

    return teacher, update


FORMS: dict[str, Form] = {
    "multi-tensor": _matched_once,
    "matched anew": _matched_anew,
    "averaged model": _averaged_model,
    "loop": _loop,
    "ignite": _ignite,
}


@functools.cache
def _network(name: str, seed: int, device: torch.device) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name]().to(device)


@functools.cache
def _prepared(name: str, form: str, device: torch.device) -> tuple[Tensor, Callable[[], object]]:
    """Return a weight of the teacher and the call that updates it."""
    torch.manual_seed(1)
    averaged, update = FORMS[form](NETWORKS[name]().to(device), _network(name, 0, device))
    return list(averaged.parameters())[-2], update


def _updated(name: str, form: str, place: Tensor) -> Tensor:
    weight, update = _prepared(name, form, place.device)
    update()
    return weight


def _make(device: torch.device) -> tuple[Tensor]:
    return (torch.zeros(1, device=device),)


def _problem(name: str) -> Problem:
    with torch.device("meta"):
        network = NETWORKS[name]()
    sizes = [t.numel() for t in network.state_dict().values() if t.is_floating_point()]
    forms: dict[str, Implementation] = {form: partial(_updated, name, form) for form in FORMS}
    return Problem(
        columns={"network": name, "tensors": len(sizes), "N": sum(sizes)},
        work=Work(3e-9 * sum(sizes), 0.0, 12e-9 * sum(sizes)),  # read both, write one
        make=_make,
        implementations=forms,
    )


CASE = Case("ema", "loop", [_problem(name) for name in NETWORKS])
