# SPDX-License-Identifier: Apache-2.0
"""The trainer: accumulation, hooks, randomness, outputs."""

from __future__ import annotations

import pytest
import torch
from monai.handlers import from_engine
from tests.toy import ToyLoader, ToyStep, toy_trainer

from fewlabel.engines import StreamTrainer
from fewlabel.errors import ConfigError


def test_output_is_read_by_monai_handlers() -> None:
    trainer = toy_trainer(max_epochs=1)
    trainer.run()
    loss = from_engine(["loss"], first=True)(trainer.state.output)
    assert loss.ndim == 0 and not loss.requires_grad
    assert set(trainer.state.output[0]) == {"loss", "error"}


def test_training_lowers_the_loss() -> None:
    trainer = toy_trainer(max_epochs=40)
    x = next(iter(ToyLoader()))
    before = float(trainer.module.eval()(x)["loss"].detach())
    trainer.run()
    assert float(trainer.module.eval()(x)["loss"].detach()) < 0.5 * before


def test_accumulated_gradients_equal_the_mean_of_the_batches() -> None:
    class Step(ToyStep):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Linear(4, 1)

    def step() -> Step:
        torch.manual_seed(0)
        return Step()

    trained, expected = step(), step()
    sgd = torch.optim.SGD(trained.parameters(), lr=0.1)
    StreamTrainer("cpu", 1, ToyLoader(3), trained, sgd, accumulation_steps=3).run()
    loader = ToyLoader(3)
    loader.set_epoch(1)
    torch.stack([expected(batch)["loss"] for batch in loader]).mean().backward()
    for p, q in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.1 * q.grad)
    assert trained.steps == [3]


def test_accumulation_must_divide_the_epoch() -> None:
    with pytest.raises(ConfigError, match="epoch_length 3 is not a multiple of accumulation_steps 2"):
        toy_trainer(accumulation_steps=2)


def test_steps_do_not_depend_on_the_global_generators() -> None:
    a, b = toy_trainer(max_epochs=2), toy_trainer(max_epochs=2)
    a.run()
    torch.manual_seed(99)
    b.run()
    c = toy_trainer(max_epochs=2, seed=1)
    c.run()
    last = [t.module.network[3].weight for t in (a, b, c)]
    assert torch.equal(last[0], last[1]) and not torch.equal(last[0], last[2])


def test_amp_is_off_on_the_cpu() -> None:
    trainer = toy_trainer(max_epochs=1, amp=True)
    trainer.run()
    assert trainer.amp is False and trainer.scaler is None
