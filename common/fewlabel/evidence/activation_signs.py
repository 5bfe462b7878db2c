# SPDX-License-Identifier: Apache-2.0
"""Does a self-activation map light up on nuclei, and how often must its sign be turned for that?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Transposed
from torch import Tensor, nn

from fewlabel.data import AnyReader
from fewlabel.metrics import auc
from fewlabel.networks import ScoreNetwork
from fewlabel.networks.weights import load_weights
from fewlabel.pseudolabels import fuse_layers, layer_maps, optical_density, orient_maps, stain_densities
from fewlabel.pseudolabels.self_activation import Order
from fewlabel.transforms import ToRGBd
from fewlabel.transforms._meta import plain

ORDERS: tuple[Order, ...] = ("relu_then_minmax", "minmax_then_mean")


class Tile(NamedTuple):
    """A picture with its nuclei.

    Args:
        name: for the table.
        image: (3, H, W) float32, RGB in [0, 1].
        nuclei: (1, H, W) bool.
    """

    name: str
    image: Tensor
    nuclei: Tensor


class SignRow(NamedTuple):
    """One image, one order of normalization.

    Args:
        image: name of the tile.
        order: see :func:`fewlabel.pseudolabels.self_activation_map`.
        auc_before: chance that the map is higher on a pixel of a nucleus than on one beside, ties a half; as it comes.
        auc_after: the same with the sign fixed.
        layers_turned: how many layers' maps the rule turned.
        layers: of how many.
    """

    image: str
    order: str
    auc_before: float
    auc_after: float
    layers_turned: int
    layers: int


def sign_rows(
    network: nn.Module,
    tiles: Iterable[Tile],
    layers: Sequence[str],
    toward: str = "density",
    margin_px: int = 32,
    orders: Sequence[Order] = ORDERS,
) -> Iterator[SignRow]:
    """Compare maps with the true nuclei, before and after their signs are fixed.

    Args:
        network: images (B, 3, H, W) to scores (B, 1).
        tiles: with nuclei and pixels beside them.
        layers: names of the network's layers.
        toward: what fixes the sign, optical ``"density"`` or that of ``"hematoxylin"``.
        margin_px: see :func:`fewlabel.pseudolabels.self_activation_map`.
        orders: those to compare.

    Yields:
        A row for each tile and order.

    Raises:
        ValueError: ``toward`` is something else.
    """
    if toward not in ("density", "hematoxylin"):
        raise ValueError(f"toward is {toward!r}, expected 'density' or 'hematoxylin'")
    for tile in tiles:
        image = tile.image[None]
        guide = optical_density(image).mean(1, keepdim=True) if toward == "density" else stain_densities(image)[:, :1]
        raw = layer_maps(network, image, layers, margin_px=margin_px)
        fixed = [orient_maps(maps, guide) for maps in raw]
        turned = sum(not torch.equal(a, b) for a, b in zip(raw, fixed, strict=True))
        for order in orders:
            before, after = (auc(fuse_layers(m, image.shape[2:], order)[0], tile.nuclei) for m in (raw, fixed))
            yield SignRow(tile.name, order, before, after, turned, len(raw))


def read_tiles(items: Iterable[dict[str, Any]]) -> Iterator[Tile]:
    """Read pictures and labels one after another.

    Args:
        items: of a data list; every one with ``image`` and ``label``.

    Yields:
        Tiles; what is not 0 in a label is nucleus.
    """
    reading: Any = Compose(
        [
            LoadImaged(["image", "label"], reader=AnyReader, image_only=True, dtype=None),
            EnsureChannelFirstd(["image", "label"]),
            ToRGBd("image"),
            Transposed(["image", "label"], indices=[0, 2, 1]),
        ]
    )
    for item in items:
        read = reading({key: item[key] for key in ("image", "label")})
        yield Tile(Path(item["image"]).name, plain(read["image"]), plain(read["label"])[:1] != 0)


def random_network(
    seed: int,
    encoder: str = "res2net101_26w_4s",
    encoder_options: Mapping[str, Any] | None = None,
    checkpoint: str | Path = "",
) -> ScoreNetwork:
    """Return a score network in evaluation mode; the global generator stays as it is.

    Args:
        seed: of its weights.
        encoder: see :class:`fewlabel.networks.ScoreNetwork`.
        encoder_options: see there.
        checkpoint: its weights, as the stage ``pretraining`` writes them; empty keeps the random ones.

    Raises:
        ConfigError: when the checkpoint belongs to another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ScoreNetwork(encoder, encoder_options)
    if checkpoint:
        load_weights(network, checkpoint, key="checkpoints", strict=True)
    return network.eval()
