# SPDX-License-Identifier: Apache-2.0
"""Proxy tasks: their values written out image by image, learning, resuming, and collapse that shows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewlabel.engines import ProxyTaskStep, StreamTrainer
from fewlabel.engines.steps.proxy_task import TASKS
from fewlabel.errors import ConfigError
from fewlabel.handlers import CheckpointHandler, HistoryHandler
from fewlabel.networks import ScoreNetwork

TINY: dict[str, Any] = {"encoder": "resnet10t", "encoder_options": {"channels": [4, 4, 8, 8], "stem_width": 4}}
every_task = pytest.mark.parametrize("task", TASKS)


def step(task: str, outputs: int = 1, **options: Any) -> ProxyTaskStep:
    torch.manual_seed(0)
    return ProxyTaskStep(ScoreNetwork(**TINY, outputs=outputs), task, **options)


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch(x: Tensor) -> dict[str, Any]:
    return {"labeled": [{"image": x}]}


def by_hand(made: ProxyTaskStep, x: Tensor) -> Tensor:
    """The loss of a step in evaluation mode, where images do not influence one another."""

    def score(image: Tensor) -> Tensor:
        return made.network(image[None])[0]

    turned = [torch.rot90(image, 2, (1, 2)) for image in x]
    losses = []
    if made.task == "similarity":
        losses = [(score(a) - score(b)).abs().mean() for a, b in zip(x, turned, strict=True)]
    elif made.task == "mean_value":
        losses = [(score(a) - a.mean()).abs().mean() for a in x]
    elif made.task == "contrastive":
        near = torch.stack([(score(b) - score(a)) ** 2 for a, b in zip(x[:-1], turned[:-1], strict=True)]).mean()
        far = torch.stack([(score(x[-1]) - score(a)) ** 2 for a in x[:-1]]).mean()
        losses = [torch.relu(near - far + made.margin)]
    elif made.task == "simsiam":
        for a, b in zip(x, turned, strict=True):
            for one, other in ((a, b), (b, a)):
                target = made.projector(score(other)).detach()
                losses.append((made.predictor(score(one)) - target).abs().mean())
    else:
        quarters = torch.randint(4, (len(x),)).tolist()
        losses = [(score(torch.rot90(a, q, (1, 2))) - q).square().mean() for a, q in zip(x, quarters, strict=True)]
    return torch.stack(losses).mean()


@every_task
@pytest.mark.parametrize(("outputs", "options"), [(1, {}), (5, {"train_heads": False, "margin": 0.5})])
def test_value_and_gradient_by_hand(task: str, outputs: int, options: dict[str, Any]) -> None:
    made, x = step(task, outputs, **options).double().eval(), images().double()
    for module in made.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.05)  # scores that differ from image to image
    torch.manual_seed(3)
    terms = made(batch(x))
    torch.manual_seed(3)
    expected = by_hand(made, x)
    torch.testing.assert_close(terms["loss"], expected)
    assert list(terms) == ["loss", task, "score_mean", "score_std"] and terms["loss"] is terms[task]
    parameters = [p for p in made.parameters() if p.requires_grad]
    ours = torch.autograd.grad(terms["loss"], parameters)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


def test_scores_are_described_over_the_batch() -> None:
    made, x = step("mean_value", outputs=3).eval(), images()
    scores, terms = made.network(x), made(batch(x))
    torch.testing.assert_close(terms["score_mean"], scores.mean())
    torch.testing.assert_close(terms["score_std"], scores.std(dim=0, correction=0).mean())
    assert not terms["score_mean"].requires_grad and not terms["score_std"].requires_grad
    for parameter in made.network.get_submodule("encoder.fc").parameters():
        nn.init.zeros_(parameter)
    assert made(batch(x))["score_std"] == 0


def test_input_scale_of_the_released_code() -> None:
    made, x = step("mean_value", input_scale=255).eval(), images()
    torch.testing.assert_close(made(batch(x))["loss"], step("mean_value").eval()(batch(255 * x))["loss"])


@pytest.mark.parametrize(("train_heads", "shape"), [(True, (6, 6)), (False, (1, 6))])
def test_heads_of_simsiam_learn_or_are_fixed(train_heads: bool, shape: tuple[int, int]) -> None:
    made = step("simsiam", outputs=6, train_heads=train_heads)
    assert made.predictor.weight.shape == shape
    made(batch(images()))["loss"].backward()
    heads = [*made.predictor.parameters(), *made.projector.parameters()]
    assert all((p.grad is not None) == train_heads for p in heads)
    assert all(p.grad is not None for p in made.network.parameters())


@every_task
def test_in_distributed_data_parallel_and_under_autocast(task: str, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(step(task))
        for _ in range(2):  # the reducer complains at the second step about parameters without gradient
            with torch.autocast("cpu", dtype=torch.bfloat16):
                terms = wrapped(batch(images()))
            terms["loss"].backward()
    finally:
        dist.destroy_process_group()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())


def test_mistakes_get_one_sentence() -> None:
    with pytest.raises(ConfigError, match="task 'jigsaw' is none of similarity, contrastive"):
        step("jigsaw")
    with pytest.raises(ConfigError, match="batch_size is 1: the task contrastive"):
        step("contrastive")(batch(images(1)))
    with pytest.raises(ConfigError, match="images are 32 x 24: the task rotation needs square ones"):
        step("rotation")(batch(images()[..., :24]))
    assert step("similarity")(batch(images(1)[..., :24]))["score_std"] == 0


class Loader:
    """Three batches an epoch, a function of (epoch, step): plain tiles, and tiles with a bright upper half."""

    epoch = 0

    def __len__(self) -> int:
        return 3

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(3):
            x = 0.5 * images(seed=10 * self.epoch + i)
            x[::2, :, :16] += 0.5
            yield batch(x)


class Killed(RuntimeError):
    """Stands for kill -9."""


def trained(task: str, folder: Path, kill_at: int = 0, max_epochs: int = 3) -> ProxyTaskStep:
    made = step(task)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=0.01)
    handlers = [
        HistoryHandler(folder / "output"),
        CheckpointHandler(folder / "models", made.network, made, optimizer),
    ]
    trainer = StreamTrainer("cpu", max_epochs, Loader(), made, optimizer, train_handlers=handlers)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _(engine: Engine) -> None:
        if engine.state.iteration == kill_at:
            raise Killed

    trainer.run()
    return made


@every_task
def test_killed_and_resumed_equals_uninterrupted(task: str, tmp_path: Path) -> None:
    whole = trained(task, tmp_path / "a")
    with pytest.raises(Killed):
        trained(task, tmp_path / "b", kill_at=5)
    resumed = trained(task, tmp_path / "b")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert int(resumed.iteration) == 9
    start = step(task).state_dict()
    assert not torch.equal(whole.state_dict()["network.encoder.fc.weight"], start["network.encoder.fc.weight"])
    with (tmp_path / "b" / "output" / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 and {"loss", task, "score_mean", "score_std"} <= set(rows[0])
    inference = ScoreNetwork(**TINY)
    inference.load_state_dict(torch.load(tmp_path / "b" / "models" / "model.pt", weights_only=True))
    x = images()
    assert torch.equal(inference.eval()(x), whole.network.eval()(x))


@pytest.mark.parametrize("task", ["similarity", "rotation", "mean_value"])
def test_training_lowers_the_loss(task: str, tmp_path: Path) -> None:
    trained(task, tmp_path, max_epochs=12)
    with (tmp_path / "output" / "history.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert min(losses[-3:]) < 0.9 * losses[0], losses
