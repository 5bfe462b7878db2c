# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, Lambdad, MapTransform, RandGaussianNoised, Randomizable

from fewlabel.data import CachedDataset
from fewlabel.errors import ConfigError


class Read(MapTransform):
    """Deterministic "reading" that counts its calls."""

    def __init__(self) -> None:
        super().__init__("x")
        self.calls: list[int] = []

    def __call__(self, data: Any) -> dict[str, Any]:
        self.calls.append(int(data["x"]))
        return {"x": torch.full((2, 3), float(data["x"]))}


class InPlace(MapTransform, Randomizable):
    """A random transform of the careless sort."""

    def __init__(self) -> None:
        super().__init__("x")

    def __call__(self, data: Any) -> Any:
        data["x"] += 1 + self.R.rand()
        return data


def _items(count: int) -> list[dict[str, int]]:
    return [{"x": i} for i in range(count)]


def test_nothing_is_read_before_the_first_access_and_then_once() -> None:
    read = Read()
    dataset = CachedDataset(_items(4), [read, RandGaussianNoised("x", prob=1.0)])
    assert len(dataset) == 4 and read.calls == []
    for _ in range(3):
        for i in (2, 3):
            dataset[i]
    assert sorted(read.calls) == [0, 2, 3]  # item 0 told the size


def test_same_items_as_monai() -> None:
    ours = CachedDataset(_items(3), [Read(), Lambdad("x", lambda x: x + 1)], cache_rate=1.0)
    theirs = CacheDataset(_items(3), [Read(), Lambdad("x", lambda x: x + 1)], progress=False)
    for _ in range(2):
        assert all(torch.equal(a["x"], b["x"]) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(ours[-1]["x"], theirs[2]["x"]) and len(ours[:2]) == 2
    with pytest.raises(IndexError):
        ours[3]


def test_cache_cannot_be_changed_from_outside() -> None:
    dataset = CachedDataset(_items(2), [Read(), InPlace()])
    for _ in range(3):
        assert 2 <= dataset[1]["x"].max() < 3
    plain = CachedDataset(_items(2), [Read()])  # no random transform at all
    plain[1]["x"].zero_()
    assert plain[1]["x"].max() == 1


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 0), (0.5, 2), (1.0, 4), (1, 4), ("0.25", 1)])
def test_share_of_items_kept(rate: Any, kept: int) -> None:
    read = Read()
    dataset = CachedDataset(_items(4), [read, InPlace()], cache_rate=rate)
    for _ in range(2):
        for i in range(4):
            dataset[i]
    assert dataset.cache_num == kept and len(read.calls) == kept + 2 * (4 - kept)


def test_auto_keeps_what_fits_into_a_quarter_of_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabel.data.dataset.free_bytes", lambda: 4 * 3 * 24 + 50)  # an item has 24 bytes
    dataset = CachedDataset(_items(5), [Read()])
    dataset[4]
    assert dataset.cache_num == 3


@pytest.mark.parametrize("rate", [-0.1, 1.1, "some", None])
def test_impossible_share(rate: Any) -> None:
    with pytest.raises(ConfigError, match="cache_rate"):
        CachedDataset([], [], cache_rate=rate)


def test_data_replaced_by_call_or_assignment_forgets_the_cache() -> None:
    dataset = CachedDataset(_items(3), [Read()])
    assert dataset[2]["x"].max() == 2
    dataset.set_data([{"x": 7}, {"x": 8}])
    assert len(dataset) == 2 and dataset[1]["x"].max() == 8
    dataset.data = [{"x": 9}]
    assert dataset[0]["x"].max() == 9 and dataset.cache_num == 1


def test_fill_reads_everything_once() -> None:
    read = Read()
    dataset = CachedDataset(_items(6), Compose([read, InPlace()]))
    dataset.fill(num_threads=3, progress=False)
    dataset.fill(num_threads=3, progress=False)
    assert sorted(read.calls) == list(range(6))
    dataset[5]
    assert len(read.calls) == 6


def test_workers_and_pickling() -> None:
    dataset = CachedDataset(_items(6), [Read()])
    values = [batch["x"][:, 0, 0] for batch in DataLoader(dataset, batch_size=2, num_workers=2)]
    assert torch.cat(values).tolist() == list(range(6))
    assert pickle.loads(pickle.dumps(dataset))[3]["x"].max() == 3


def test_empty_dataset() -> None:
    assert len(CachedDataset([], [Read()])) == 0
    CachedDataset((), [Read()]).fill()


def test_numpy_items_are_copied_too() -> None:
    dataset = CachedDataset([{"x": 1}], [Lambdad("x", lambda _: np.ones(3))])
    dataset[0]["x"][:] = 5
    assert dataset[0]["x"].max() == 1
