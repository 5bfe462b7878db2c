# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from monai.data import Dataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandRotated,
)
from tests.data.pictures import dataset
from tests.kernels._threads import torch_threads

from fewlabel.data import CachedDataset, StreamLoader, splits
from fewlabel.errors import ConfigError, DataError


def _global_noise(image: torch.Tensor) -> torch.Tensor:
    """What careless third-party transforms do: draw from all global generators."""
    return image + torch.rand(1) + float(np.random.rand()) + random.random()  # noqa: NPY002


def _transform(keys: tuple[str, ...]) -> Compose:
    return Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            NormalizeIntensityd("image"),  # a mean over all pixels: its last bits depend on the number of threads
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandRotated(keys, range_x=0.5, prob=0.5, mode="nearest"),
            RandGaussianNoised("image", prob=0.8),
            Lambdad("image", _global_noise),
        ]
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("frames"), training=12)


def _loader(root: Path, cached: bool = True, **options: Any) -> StreamLoader:
    draw = splits(root, label_budget=5)
    kind = CachedDataset if cached else Dataset
    labeled = kind(draw.labeled, _transform(("image", "label")))
    unlabeled = kind(draw.unlabeled, _transform(("image",)))
    return StreamLoader(labeled, unlabeled, **{"batch_size": 2, "epoch_length": 4, "seed": 7, **options})


def _tensors(loader: StreamLoader, epochs: tuple[int, ...] = (1, 2)) -> list[torch.Tensor]:
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        for batch in loader:
            found += [part[key] for part in (*batch["labeled"], batch["unlabeled"]) for key in sorted(part)]
    return found


def _equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("streams", "parts"), [("single", 1), ("halves", 2), ("independent", 2)])
def test_form_of_a_batch(root: Path, streams: str, parts: int) -> None:
    loader = _loader(root, labeled_streams=streams)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    for batch in batches:
        assert batch.keys() == {"labeled", "unlabeled"} and len(batch["labeled"]) == parts
        for part in batch["labeled"]:
            assert part.keys() == {"image", "label"}
            assert part["image"].shape == (2, 3, 16, 12) and part["label"].shape == (2, 1, 16, 12)
        assert batch["unlabeled"].keys() == {"image"}
        assert type(batch["unlabeled"]["image"]) is torch.Tensor and batch["unlabeled"]["image"].dtype == torch.float32


def test_without_unlabeled_images(root: Path) -> None:
    labeled = CachedDataset(splits(root).labeled, _transform(("image", "label")))
    assert all(batch.keys() == {"labeled"} for batch in StreamLoader(labeled, epoch_length=2))


@pytest.mark.parametrize("cached", [True, False])
def test_workers_change_nothing_bit_for_bit(root: Path, cached: bool) -> None:
    alone = _tensors(_loader(root, cached, labeled_streams="halves"))
    assert _equal(alone, _tensors(_loader(root, cached, labeled_streams="halves", num_workers=2)))
    assert _equal(alone, _tensors(_loader(root, not cached, labeled_streams="halves")))


def test_threads_change_nothing_bit_for_bit() -> None:
    """Large sums differ in their last bits between one thread, which workers have, and several."""
    rng = np.random.default_rng(0)
    items = [{"image": torch.from_numpy(rng.normal(size=(3, 200, 300)).astype(np.float32))} for _ in range(4)]
    found = []
    with torch_threads(2):
        for cached, workers in ((True, 0), (True, 2), (False, 0), (False, 2)):
            kind = CachedDataset if cached else Dataset
            labeled = kind(items, Compose([NormalizeIntensityd("image")]))
            loader = StreamLoader(labeled, None, 2, 2, num_workers=workers, keys=("image",))
            found.append([batch["labeled"][0]["image"] for batch in loader])
    assert all(_equal(found[0], other) for other in found[1:])


def test_epoch_can_be_repeated_alone(root: Path) -> None:
    loader = _loader(root)
    both = _tensors(loader, (1, 2))
    half = len(both) // 2
    assert _equal(both[half:], _tensors(_loader(root), (2,))) and _equal(both[:half], _tensors(loader, (1,)))
    assert not _equal(both[:half], both[half:]) and not _equal(both, _tensors(_loader(root, seed=8)))


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(root: Path, workers: int) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    threads = torch.get_num_threads()
    expected = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    list(_loader(root, num_workers=workers))
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002
    assert torch.get_num_threads() == threads


def _seen(loader: StreamLoader, part: int, epochs: int = 6) -> set[float]:
    values: set[float] = set()
    for epoch in range(1, epochs + 1):
        loader.set_epoch(epoch)
        for batch in loader:
            values |= set(batch["labeled"][part]["image"].flatten().tolist())
    return values


def _numbers(count: int) -> Dataset:
    items = [{"image": torch.full((1,), float(i)), "label": torch.zeros(1)} for i in range(count)]
    return Dataset(items)


def test_halves_are_disjoint_complete_and_nested() -> None:
    for count in (5, 8):
        loader = StreamLoader(_numbers(count), batch_size=2, epoch_length=3, labeled_streams="halves")
        assert _seen(loader, 0) == set(range(0, count, 2)) and _seen(loader, 1) == set(range(1, count, 2))
    loader = StreamLoader(_numbers(4), batch_size=2, epoch_length=3, labeled_streams="independent")
    assert _seen(loader, 0) == _seen(loader, 1) == set(range(4))


def test_label_of_an_unlabeled_item_never_comes_through(root: Path) -> None:
    labeled = CachedDataset(splits(root).labeled, _transform(("image", "label")))
    for batch in StreamLoader(labeled, labeled, batch_size=1, epoch_length=1):
        assert batch["unlabeled"].keys() == {"image"}


def test_several_crops_of_one_item_and_further_keys() -> None:
    item = {"image": torch.rand(1, 8, 8), "label": torch.ones(1, 8, 8), "has_lesion": 1}
    crops = RandCropByPosNegLabeld(["image", "label"], "label", spatial_size=(4, 4), num_samples=3)
    labeled = Dataset([item] * 2, [EnsureTyped(["image", "label"]), crops])
    loader = StreamLoader(labeled, labeled, 2, 1, keys=("image",), unlabeled_keys=("image", "has_lesion"))
    batch = next(iter(loader))
    assert batch["labeled"][0]["image"].shape == (6, 1, 4, 4) and batch["labeled"][0].keys() == {"image"}
    assert batch["unlabeled"]["has_lesion"].tolist() == [1] * 6
    assert not isinstance(batch["labeled"][0]["image"], MetaTensor)


def test_missing_key_is_named() -> None:
    with pytest.raises(KeyError, match=r"\['label'\] missing"):
        next(iter(StreamLoader(Dataset([{"image": torch.zeros(1)}]), epoch_length=1)))


def _refuse(image: torch.Tensor) -> torch.Tensor:
    raise DataError(["a.png: is no picture; remove it", "b.png: neither"])


@pytest.mark.parametrize("workers", [0, 2])
def test_sentence_for_the_user_survives_a_worker(workers: int) -> None:
    labeled = Dataset(_numbers(3).data, [Lambdad("image", _refuse)])
    with pytest.raises(DataError) as error:
        list(StreamLoader(labeled, epoch_length=2, num_workers=workers))
    assert error.value.problems == ["a.png: is no picture; remove it", "b.png: neither"]


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(ConfigError, match=r"(?=.*label_budget)(?=.*method_enabled)"):
        StreamLoader(_numbers(1), labeled_streams="halves")
    with pytest.raises(ConfigError, match="label_budget"):
        StreamLoader(_numbers(0))
    with pytest.raises(ConfigError, match="unlabeled"):
        StreamLoader(_numbers(1), _numbers(0))
    with pytest.raises(ValueError, match="'thirds'"):
        StreamLoader(_numbers(3), labeled_streams="thirds")
    with pytest.raises(ValueError, match="batch_size"):
        StreamLoader(_numbers(3), batch_size=0)
    with pytest.raises(ValueError, match="epoch"):
        StreamLoader(_numbers(3)).set_epoch(0)


def _rank(rank: int, world: int, folder: str, root: str, workers: int) -> None:
    store = torch.distributed.FileStore(f"{folder}/store{workers}", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    loader = _loader(Path(root), batch_size=1, num_workers=workers)
    torch.save(_tensors(loader, (1,)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_halves_of_what_one_takes(root: Path, tmp_path: Path) -> None:
    mp.start_processes(_rank, (2, str(tmp_path), str(root), 0), nprocs=2, start_method="fork")
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = _tensors(_loader(root, batch_size=2), (1,))
    assert _equal([torch.cat(pair) for pair in zip(*ours, strict=True)], alone)


def test_real_frames(real_data: Any) -> None:
    draw = splits(real_data("mms_endovis15"), "dataset.json", label_budget=4)
    keys = ("image", "label")
    labeled = CachedDataset(draw.labeled, Compose([LoadImaged(keys), EnsureChannelFirstd(keys)]))
    unlabeled = CachedDataset(draw.unlabeled[:4], Compose([LoadImaged("image"), EnsureChannelFirstd("image")]))
    for batch in StreamLoader(labeled, unlabeled, batch_size=2, epoch_length=2, labeled_streams="halves"):
        assert [part["image"].shape for part in batch["labeled"]] == [(2, 3, 640, 480)] * 2
        assert batch["labeled"][0]["label"].unique().tolist() == [0, 1, 2]
