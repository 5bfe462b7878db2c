# SPDX-License-Identifier: Apache-2.0
"""Contrastive pre-training: what each branch trains, with which keys, and that a resumed run is the same one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.data import MetaTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from fewlabel.engines import ContrastivePretrainingStep, StreamTrainer
from fewlabel.engines.steps.windows import draw_windows
from fewlabel.errors import ConfigError
from fewlabel.handlers import CheckpointHandler, HistoryHandler
from fewlabel.losses import RegionContrastLoss, gather_points
from fewlabel.networks import DenseBasicUNet, DenseFlexibleUNet, EncoderUNet, cosine_decay, load_weights

OPTIONS: dict[str, dict[str, Any]] = {
    "moco": {},
    "moco symmetric": {"symmetric": True},
    "moco only": {"local_weight": 0.0},
    "byol": {"global_branch": "byol"},
    "byol one-sided": {"global_branch": "byol", "symmetric": False, "local_weight": 0.5},
    "simsiam": {"global_branch": "simsiam"},
    "simsiam only": {"global_branch": "simsiam", "local_weight": 0.0},
    "local": {"global_branch": "none"},
    "local shared": {"global_branch": "none", "key_encoder": "shared"},
    "moco window": {"local_window": 0.5},
    "byol window": {"global_branch": "byol", "local_window": 0.5},
    "local shared one-sided": {"global_branch": "none", "key_encoder": "shared", "symmetric": False},
}
every_option = pytest.mark.parametrize("name", OPTIONS)


def network(dims: int = 2, norm: str = "batch", seed: int = 0) -> DenseBasicUNet:
    torch.manual_seed(seed)
    return DenseBasicUNet(dims, 1, 3, (4, 4, 4, 8, 8, 4), norm=norm, dropout=0.1)


def step(name: str = "moco", dims: int = 2, **options: Any) -> ContrastivePretrainingStep:
    small: dict[str, Any] = {"channels": 8, "dense_channels": 8, "queue_size": 6, "total_iterations": 8}
    made = network(dims)
    torch.manual_seed(1)
    return ContrastivePretrainingStep(
        made, loss=RegionContrastLoss(regions=4, points=3, min_pixels=4), **(small | OPTIONS[name] | options)
    )


def batch(seed: int = 0, dims: int = 2, count: int = 2) -> dict[str, Any]:
    """Stripes of random brightness and their numbers, in two views."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, *[32] * dims)
    regions = (torch.arange(32) // 5).expand(shape).contiguous()
    images = [
        torch.randn(count, 1, *[1] * (dims - 1), 7, generator=generator)[..., torch.arange(32) // 5] for _ in "ab"
    ]
    noisy = [i.expand(shape) + 0.1 * torch.randn(shape, generator=generator) for i in images]
    keys = ("image", "image_2", "regions", "regions_2")
    return {"labeled": [dict(zip(keys, (*noisy, regions.int(), regions.flip(2).int()), strict=True))]}


class Batches:
    """A loader whose batches are a function of (epoch, iteration)."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 2

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (batch(10 * self.epoch + i) for i in range(2))


def trainer(folder: Path, name: str, max_epochs: int) -> StreamTrainer:
    made = step(name)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=0.01)
    handlers = [HistoryHandler(folder), CheckpointHandler(folder, made.network, made, optimizer)]
    return StreamTrainer("cpu", max_epochs, Batches(), made, optimizer, train_handlers=handlers)


@pytest.mark.parametrize("name", ["moco", "moco window", "byol", "simsiam", "local"])
def test_stopped_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "a", name, 4)
    whole.run()
    trainer(tmp_path / "b", name, 2).run()
    resumed = trainer(tmp_path / "b", name, 4)
    resumed.run()
    theirs = resumed.module.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in whole.module.state_dict().items())
    assert whole.module.iteration == 8
    head = (tmp_path / "a/history.csv").read_text().splitlines()[0].split(",")
    terms = ["global", "global_top1"] if name.startswith("moco") else []
    assert set(terms) <= set(head) and {"local", "positive_similarity", "valid_regions"} <= set(head)


def test_what_was_trained_is_what_fine_tuning_loads(tmp_path: Path) -> None:
    run = trainer(tmp_path, "moco", 1)
    before = {k: v.clone() for k, v in run.module.network.state_dict().items()}
    run.run()
    fine = network(seed=3)
    load_weights(fine, tmp_path / "model.pt", key="init_checkpoint", strict=True)
    changed = {k for k, v in fine.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(fine.trunk_state_dict()), "all of encoder and decoder, nothing of the head"


@every_option
@pytest.mark.parametrize("dims", [2, 3])
def test_terms_and_gradients(name: str, dims: int) -> None:
    made = step(name, dims)
    made.train()(batch(7, dims))
    terms = made(batch(0, dims))
    terms["loss"].backward()
    expected = terms.get("global", torch.zeros(())) + made.local_weight * terms.get("local", torch.zeros(()))
    torch.testing.assert_close(terms["loss"], expected)
    assert ("global" in terms) == (made.global_branch != "none") and ("local" in terms) == bool(made.local_weight)
    assert all(t.ndim == 0 and t.isfinite() for t in terms.values())
    assert [n for n, p in made.named_parameters() if p.requires_grad != (p.grad is not None)] == []
    decoder = [p for part in made.network.decoder_parts() for p in part.parameters()]
    assert all(p.requires_grad == bool(made.local_weight) for p in decoder)


def test_local_term_is_the_loss_of_dense_maps() -> None:
    """Project whole maps, then sample: with BatchNorm in evaluation mode the order cannot matter."""
    made = step("local").eval()
    torch.manual_seed(3)
    found = made(batch())["local"]
    torch.manual_seed(3)
    stream = batch()["labeled"][0]
    points = made.loss.sample(stream["regions"][:, 0], stream["regions_2"][:, 0], int(torch.randint(2**62, ())))
    maps = []
    for net, heads, image in (
        (made.network, made.heads, "image"),
        (made.target["network"], made.target["heads"], "image_2"),
    ):
        dense = net.decode(net.encode(stream[image]))
        maps.append(heads["points"](dense.movedim(1, -1)).movedim(-1, 1))
    q, k = (gather_points(m, p) for m, p in zip(maps, points[:2], strict=True))
    torch.testing.assert_close(found, made.loss(q, k.detach(), points.valid)["loss"])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_window_is_cut_out_of_the_features_and_of_the_maps(dims: int) -> None:
    """The encoder sees the whole view; decoder and samples see the window alone."""
    made = step("local shared one-sided", dims, local_window=0.5).eval()
    torch.manual_seed(3)
    found = made(batch(dims=dims))
    torch.manual_seed(3)
    stream = batch(dims=dims)["labeled"][0]
    maps = [stream[key][:, 0] for key in ("regions", "regions_2")]
    windows = draw_windows(*maps, 0.5, [16] * dims)
    shown = [window.crop(m, [16] * dims) for window, m in zip(windows, maps, strict=True)]
    assert shown[0].shape == (2, *[16] * dims)
    points = made.loss.sample(*shown, int(torch.randint(2**62, ())))
    dense = []
    for image, window in zip((stream["image"], stream["image_2"]), windows, strict=True):
        cut = []
        for f in made.network.encode(image):
            half = f.shape[-1] // 2
            boxes = ([slice(half * c, half * (c + 1)) for c in corner] for corner in window.corners)
            cut.append(torch.stack([one[:, *box] for one, box in zip(f, boxes, strict=True)]))
        dense.append(made.network.decode(cut))
    query, key = (made.heads["points"](gather_points(d, p)) for d, p in zip(dense, points[:2], strict=True))
    torch.testing.assert_close(found["local"], made.loss(query, key.detach(), points.valid)["loss"])
    assert found["valid_regions"] == points.valid.sum() / 2


def test_moco_contrasts_against_the_queue_of_earlier_keys() -> None:
    made = step("moco only")
    made.target.eval()  # no dropout
    made(batch(1))
    key = made.target["heads"]["image"](made.target["network"].encode(batch(1)["labeled"][0]["image_2"])[-1])
    torch.testing.assert_close(made.global_loss.queue[:2], F.normalize(key).detach())
    assert made.global_loss.filled == 2


def test_moving_average_follows_along_the_cosine() -> None:
    made = step("local", momentum=0.5)
    old, new = (n.conv_0.conv_0.conv.weight for n in (made.target["network"], made.network))
    start = old.clone()
    new.data += 1
    made.after_step(2)
    torch.testing.assert_close(old, start + 1 - cosine_decay(2, 8, 0.5))
    made.after_step(8)
    torch.testing.assert_close(old, start + 1 - cosine_decay(2, 8, 0.5), msg="at the end nothing moves")
    assert made.iteration == 8 and not any(p.requires_grad for p in made.target.parameters())


@pytest.mark.parametrize("name", ["moco", "byol", "simsiam", "local"])
def test_both_branches_learn(name: str) -> None:
    made = step(name, momentum=0.9, queue_size=64, total_iterations=1000).train()
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for i in range(30):
        torch.manual_seed(i)
        data = batch(i, count=4)
        data["labeled"][0]["image_2"] = data["labeled"][0]["image"].flip(2)
        terms = made(data)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        made.after_step(i + 1)
        losses.append(terms["local"].item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@every_option
def test_under_autocast(name: str) -> None:
    plain, mixed = step(name), step(name)
    torch.manual_seed(0)
    expected = plain(batch())
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = mixed(batch())
    terms["loss"].backward()
    assert all(term.dtype == torch.float32 for term in terms.values())
    for term in ("global", "local"):
        if term in terms:
            torch.testing.assert_close(terms[term], expected[term], rtol=0.2, atol=0.1)


def test_maps_may_be_floating_metadata_tensors() -> None:
    plain, wrapped = batch(), batch()
    stream = wrapped["labeled"][0]
    stream.update({k: MetaTensor(v.float()) for k, v in stream.items()})
    results = []
    for data in (plain, wrapped):
        made = step()
        torch.manual_seed(0)
        results.append(made(data)["loss"])
    assert torch.equal(*results) and type(results[1]) is torch.Tensor


def _rank(rank: int, world: int, folder: str, name: str) -> None:
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", world), rank=rank, world_size=world)
    made = step(name)
    wrapped = DistributedDataParallel(made)
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.01)
    for i in (1, 2, 3):
        torch.manual_seed(10 * i + rank)
        wrapped(batch(10 * i + rank))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(i)
    torch.save(made.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_two_processes_end_with_one_network_and_one_queue(name: str, tmp_path: Path) -> None:
    mp.start_processes(_rank, (2, str(tmp_path), name), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    own = ("running_mean", "running_var")  # of the last forward pass, exchanged at the next one
    different = {k for k in first if not k.endswith(own) and not torch.equal(first[k], second[k])}
    assert different == set()
    if name == "moco":
        assert first["global_loss.filled"] == 6 and len(first["global_loss.queue"].unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_branch": "dino"}, "'dino' is none of moco, byol, simsiam, none"),
        ({"local_weight": -1}, "local_weight is -1"),
        ({"global_branch": "none", "local_weight": 0}, "nothing would be learned"),
        ({"key_encoder": "own"}, "'own' is neither momentum nor shared"),
        ({"key_encoder": "shared"}, "moco needs key_encoder momentum"),
        ({"global_branch": "simsiam", "key_encoder": "momentum"}, "simsiam needs key_encoder shared"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"local_window": 0}, "local_window is 0: give a share above 0"),
        ({"local_window": 1.5}, "local_window is 1.5"),
        ({"total_iterations": 0}, "total_iterations is 0: give max_epochs times epoch_length"),
        ({"queue_size": 0}, "queue_size is 0"),
        ({"loss": RegionContrastLoss(symmetric=True)}, "give symmetric to the step"),
        ({"network": EncoderUNet(encoder="resnet18d")}, "EncoderUNet gives no dense features"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContrastivePretrainingStep(**{"network": network(), "total_iterations": 8, "queue_size": 8} | options)


def test_what_a_batch_lacks_is_named() -> None:
    data = batch()
    del data["labeled"][0]["regions_2"]
    with pytest.raises(ConfigError, match="needs regions_2"):
        step()(data)
    step("moco only")(data)
    with pytest.raises(ConfigError, match="set batch_size to 2"):
        step("byol")(batch(count=1))
    step("moco")(batch(count=1))


def test_a_network_with_a_backbone() -> None:
    made = ContrastivePretrainingStep(
        DenseFlexibleUNet(1, 3, "efficientnet-b0", decoder_channels=(8, 8, 8, 8, 4)), total_iterations=4, queue_size=8
    )
    made(batch())["loss"].backward()
    assert [n for n, p in made.named_parameters() if p.requires_grad != (p.grad is not None)] == []
