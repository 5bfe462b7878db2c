# SPDX-License-Identifier: Apache-2.0
"""Does a self-activation map light up on nuclei, and how often must its sign be turned for that?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Transposed
from scipy.stats import rankdata
from torch import Tensor, nn

from fewlabel.data import AnyReader
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
            before, after = (rank_auc(fuse_layers(m, image.shape[2:], order)[0], tile.nuclei) for m in (raw, fixed))
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


def random_network(seed: int, encoder: str = "res2net101_26w_4s", checkpoint: str = "") -> tuple[nn.Module, list[str]]:
    """Return a network of one score, and the names of the blocks of its first stage.

    Args:
        seed: of its weights.
        encoder: a residual network of timm.
        checkpoint: state dict that replaces the weights; empty keeps them random.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(encoder, num_classes=1)
    if checkpoint:
        network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return network.eval(), [f"layer1.{name}" for name, _ in network.layer1.named_children()]


def rank_auc(scores: Tensor, truth: Tensor) -> float:
    """Return the area under the ROC curve of scores, by Mann and Whitney's ranks.

    Args:
        scores: floating.
        truth: bool, of the same shape.

    Returns:
        In [0, 1], 0.5 for chance; nan where all or nothing is true.

    Example:
        >>> rank_auc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, True, False, True]))
        0.875
    """
    inside = truth.flatten().numpy()
    positive, negative = int(inside.sum()), int((~inside).sum())
    if positive == 0 or negative == 0:
        return float("nan")
    ranks = rankdata(scores.detach().flatten().cpu().numpy())[inside].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))
