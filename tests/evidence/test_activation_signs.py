# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.pseudolabels.test_segmenters import Scorer
from tests.pseudolabels.tiles import tissue
from tools.activation_signs import main

from fewlabel.evidence.activation_signs import ORDERS, Tile, random_network, rank_auc, read_tiles, sign_rows
from fewlabel.pseudolabels import optical_density, self_activation_map

ENCODER = "res2net50_14w_8s"


def tiles() -> list[Tile]:
    pairs = [tissue(seed) for seed in (0, 1)]
    return [Tile(f"{i}.png", image[0], nuclei[None]) for i, (image, nuclei) in enumerate(pairs)]


def test_auc_counts_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.randint(6, (60,), generator=generator).float(), torch.rand(60, generator=generator) < 0.3
    a, b = scores[truth][:, None], scores[~truth][None]
    expected = float(((a > b).float() + 0.5 * (a == b)).mean())
    assert rank_auc(scores, truth) == pytest.approx(expected)
    assert np.isnan(rank_auc(scores, torch.ones(60, dtype=torch.bool)))


def test_rows_before_and_after() -> None:
    found = {s: list(sign_rows(Scorer(s), tiles(), ["body.1"], margin_px=8)) for s in (1, -1)}
    for one, other in zip(found[1], found[-1], strict=True):
        assert one.auc_after == pytest.approx(other.auc_after)
        assert {one.layers_turned, other.layers_turned} == {0, 1} and one.layers == 1
        if one.order == "minmax_then_mean":
            assert one.auc_before == pytest.approx(1 - other.auc_before)
            assert one.auc_after == pytest.approx(max(one.auc_before, other.auc_before))
    assert [(row.image, row.order) for row in found[1]] == [(f"{i}.png", order) for i in (0, 1) for order in ORDERS]
    tile = tiles()[0]
    guide = optical_density(tile.image[None]).mean(1, keepdim=True)
    for row in found[1][:2]:
        maps = self_activation_map(Scorer(1), tile.image[None], ["body.1"], 0, row.order, guide, 8)
        assert row.auc_after == rank_auc(maps[0], tile.nuclei)
    with pytest.raises(ValueError, match="toward is 'eosin'"):
        next(sign_rows(Scorer(), tiles(), ["body.1"], "eosin"))


def test_networks_repeat_and_leave_the_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    one, layers = random_network(0, ENCODER)
    other, _ = random_network(1, ENCODER)
    assert torch.equal(torch.get_rng_state(), before)
    assert layers == ["layer1.0", "layer1.1", "layer1.2"]
    x = torch.rand(1, 3, 64, 64)
    assert one(x).shape == (1, 1) and not torch.equal(one(x), other(x))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    assert torch.equal(random_network(0, ENCODER, str(tmp_path / "model.pt"))[0](x), other(x))


def test_tool_appends_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tile in tiles():
        Image.fromarray((255 * tile.image).byte().permute(1, 2, 0).numpy()).save(tmp_path / tile.name)
        Image.fromarray((7 * tile.nuclei[0]).byte().numpy()).save(tmp_path / f"label_{tile.name}")
    items = [{"image": tile.name, "label": f"label_{tile.name}"} for tile in tiles()]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    torch.save(random_network(3, ENCODER)[0].state_dict(), tmp_path / "model.pt")
    table = tmp_path / "signs.csv"
    main(str(table), str(tmp_path), "list.json", seeds=1, checkpoints=str(tmp_path / "model.pt"), encoder=ENCODER)
    lines = table.read_text().splitlines()
    assert lines[0].startswith("network,encoder,data,toward,image,order,auc_before,auc_after,layers_turned,layers")
    assert len(lines) == 1 + 2 * 2 * 2 and lines[1].startswith(f"random 0,{ENCODER},list.json,density,0.png,relu")
    assert lines[-1].startswith("model.pt,") and "maps turned" in capsys.readouterr().out
    read = next(read_tiles([{k: str(tmp_path / v) for k, v in items[0].items()}]))
    assert torch.equal(read.nuclei[0], tissue()[1])
    torch.testing.assert_close(read.image, tiles()[0].image, atol=1 / 255, rtol=0)
