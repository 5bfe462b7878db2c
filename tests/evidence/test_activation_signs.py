# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.pseudolabels.test_segmenters import Scorer
from tests.pseudolabels.tiles import tissue
from tools.activation_signs import main

from fewlabel.errors import ConfigError
from fewlabel.evidence.activation_signs import ORDERS, Tile, random_network, read_tiles, sign_rows
from fewlabel.metrics import auc
from fewlabel.pseudolabels import optical_density, self_activation_map

ENCODER = "resnet10t"
OPTIONS = {"channels": [8, 8, 8, 8], "stem_width": 4}


def tiles() -> list[Tile]:
    pairs = [tissue(seed) for seed in (0, 1)]
    return [Tile(f"{i}.png", image[0], nuclei[None]) for i, (image, nuclei) in enumerate(pairs)]


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
        assert row.auc_after == auc(maps[0], tile.nuclei)
    with pytest.raises(ValueError, match="toward is 'eosin'"):
        next(sign_rows(Scorer(), tiles(), ["body.1"], "eosin"))


def test_networks_repeat_and_leave_the_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    one, other = (random_network(seed, ENCODER, OPTIONS) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.shallow_layers == ["encoder.layer1.0"] and not one.training
    x = torch.rand(1, 3, 64, 64)
    assert one(x).shape == (1, 1) and not torch.equal(one(x), other(x))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    assert torch.equal(random_network(0, ENCODER, OPTIONS, tmp_path / "model.pt")(x), other(x))
    with pytest.raises(ConfigError, match=r"checkpoints .* does not fit the network"):
        random_network(0, ENCODER, checkpoint=tmp_path / "model.pt")


def test_tool_appends_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tile in tiles():
        Image.fromarray((255 * tile.image).byte().permute(1, 2, 0).numpy()).save(tmp_path / tile.name)
        Image.fromarray((7 * tile.nuclei[0]).byte().numpy()).save(tmp_path / f"label_{tile.name}")
    items = [{"image": tile.name, "label": f"label_{tile.name}"} for tile in tiles()]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    torch.save(random_network(3, ENCODER, OPTIONS).state_dict(), tmp_path / "model.pt")
    table = tmp_path / "signs.csv"
    network = {"encoder": ENCODER, "encoder_options": OPTIONS, "checkpoints": str(tmp_path / "model.pt")}
    main(str(table), str(tmp_path), "list.json", seeds=1, **network)
    lines = table.read_text().splitlines()
    assert lines[0].startswith("network,encoder,data,toward,image,order,auc_before,auc_after,layers_turned,layers")
    assert len(lines) == 1 + 2 * 2 * 2 and lines[1].startswith(f"random 0,{ENCODER},{tmp_path.name},density,0.png,relu")
    assert lines[-1].startswith("model.pt,") and "maps turned" in capsys.readouterr().out
    read = next(read_tiles([{k: str(tmp_path / v) for k, v in items[0].items()}]))
    assert torch.equal(read.nuclei[0], tissue()[1])
    torch.testing.assert_close(read.image, tiles()[0].image, atol=1 / 255, rtol=0)
