# SPDX-License-Identifier: Apache-2.0
"""What every training step must do: learn, resume exactly, run under autocast and in DDP, speak the batch contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from monai.data import MetaTensor
from tests.toy_steps import batch, step, train
from torch.nn.parallel import DistributedDataParallel

from fewlabel.engines.steps import (
    CrossPseudoSupervisionStep,
    MeanTeacherStep,
    MinMaxSimilarityStep,
    SupervisedStep,
    TrainingStep,
)
from fewlabel.errors import ConfigError

RELEASED = {"normalize": "l1", "symmetric": False, "shared_heads": False, "similarity_gradient": False}
KINDS: list[tuple[type[TrainingStep], dict[str, Any], str]] = [
    (SupervisedStep, {"tied": True}, "single"),
    (SupervisedStep, {}, "independent"),
    (MinMaxSimilarityStep, {}, "halves"),
    (MinMaxSimilarityStep, {"ramp_up": 4, "joint_batch": True, "train_heads": True, "statistics": "all"}, "halves"),
    (MinMaxSimilarityStep, RELEASED, "halves"),
    (MeanTeacherStep, {"ramp_up": 4}, "single"),
    (MeanTeacherStep, {"statistics": "all"}, "single"),
    (MeanTeacherStep, {"teacher_mode": "eval", "ramp_up": 0, "consistency_weight": 5.0}, "single"),
    (CrossPseudoSupervisionStep, {"ramp_up": 4}, "single"),
]
every_kind = pytest.mark.parametrize(("kind", "options", "streams"), KINDS)


def count(streams: str) -> int:
    return 1 if streams == "single" else 2


@every_kind
def test_terms_are_scalars_and_the_loader_is_told_what_to_deliver(kind: Any, options: Any, streams: str) -> None:
    made = step(kind, **options)
    assert made.labeled_streams == streams
    terms = made(batch(count(streams)))
    assert next(iter(terms)) == "loss" and len(terms) > 1
    assert all(t.ndim == 0 and t.isfinite() for t in terms.values())


SEMI = [(MinMaxSimilarityStep, 2), (MeanTeacherStep, 1), (CrossPseudoSupervisionStep, 1)]


@pytest.mark.parametrize(("kind", "streams"), SEMI)
def test_running_statistics_are_those_of_labeled_images_or_of_all(kind: type[TrainingStep], streams: int) -> None:
    def after(statistics: str, shift: float) -> list[torch.Tensor]:
        made = step(kind, statistics=statistics)
        data = batch(streams)
        data["unlabeled"]["image"] = data["unlabeled"]["image"] + shift
        made.train()(data)
        made.after_step(1)
        return [module.running_mean for module in made.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]

    for ours, shifted in zip(after("labeled", 0.0), after("labeled", 100.0), strict=True):
        torch.testing.assert_close(ours, shifted)
        assert ours.abs().sum() > 0, "labeled images move them"
    moved = [(a - b).abs().max() for a, b in zip(after("all", 0.0), after("all", 100.0), strict=True)]
    assert min(moved) > 1


def test_unknown_statistics_are_refused() -> None:
    with pytest.raises(ConfigError, match="batchnorm_statistics 'own' is neither labeled nor all"):
        step(MeanTeacherStep, statistics="own")
    with pytest.raises(ConfigError, match="set batchnorm_statistics to all"):
        step(MinMaxSimilarityStep, joint_batch=True)


@every_kind
def test_training_lowers_the_supervised_loss(kind: Any, options: Any, streams: str) -> None:
    made = step(kind, **options)
    probe = batch(count(streams), seed=99)
    before = made(probe)["supervised"].item()
    train(made, count(streams), 30, adam=True)
    assert made(probe)["supervised"].item() < 0.9 * before


@every_kind
def test_a_restored_state_repeats_the_uninterrupted_run(kind: Any, options: Any, streams: str, tmp_path: Path) -> None:
    straight = step(kind, dropout=0.5, **options)
    train(straight, count(streams), 5)
    killed = step(kind, dropout=0.5, **options)
    train(killed, count(streams), 2)
    torch.save(killed.state_dict(), tmp_path / "last.pt")
    resumed = step(kind, dropout=0.5, **options)
    for value in resumed.state_dict().values():
        value.fill_(3)  # weights, statistics, heads, iteration: nothing may survive but what is loaded
    resumed.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True))
    train(resumed, count(streams), 3, start=3)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@every_kind
def test_all_parameters_that_ask_for_a_gradient_get_one(kind: Any, options: Any, streams: str) -> None:
    made = step(kind, **options)
    made(batch(count(streams)))["loss"].backward()
    missing = [name for name, p in made.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@every_kind
def test_under_autocast(kind: Any, options: Any, streams: str) -> None:
    plain, mixed = step(kind, **options), step(kind, **options)
    torch.manual_seed(0)
    expected = plain(batch(count(streams)))
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = mixed(batch(count(streams)))
    terms["loss"].backward()
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, expected[name], rtol=0.1, atol=0.05)


@every_kind
def test_in_distributed_data_parallel(kind: Any, options: Any, streams: str, tmp_path: Path) -> None:
    """One process suffices: the reducer complains about unused parameters whatever the number of ranks."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        made = step(kind, **options)
        wrapped = DistributedDataParallel(made)
        for i in (1, 2):
            wrapped.train()
            wrapped(batch(count(streams), seed=i))["loss"].backward()
            made.after_step(i)
    finally:
        dist.destroy_process_group()


@every_kind
def test_another_number_of_streams_is_named(kind: Any, options: Any, streams: str) -> None:
    with pytest.raises(ValueError, match=f"has {3 - count(streams)} labeled streams, expected {count(streams)}"):
        step(kind, **options)(batch(3 - count(streams)))


@pytest.mark.parametrize("kind", [MinMaxSimilarityStep, MeanTeacherStep, CrossPseudoSupervisionStep])
def test_methods_say_what_they_miss(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__} needs two networks: set tied"):
        step(kind, tied=True)
    with pytest.raises(ConfigError, match="needs unlabeled images"):
        step(kind)(batch(count(kind.labeled_streams), unlabeled=False))


def test_metadata_tensors_are_stripped() -> None:
    wrapped = batch(2)
    for inner in (*wrapped["labeled"], wrapped["unlabeled"]):
        inner.update({k: MetaTensor(v) for k, v in inner.items()})
    for term in step(MinMaxSimilarityStep)(wrapped).values():
        assert type(term) is torch.Tensor


def test_a_step_must_define_forward() -> None:
    class Incomplete(TrainingStep):
        pass

    with pytest.raises(TypeError, match="abstract"):
        step(Incomplete)
