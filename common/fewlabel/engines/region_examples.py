# SPDX-License-Identifier: Apache-2.0
"""``examples/stages/`` of pre-training on regions: regions, samples, features before and after, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from fewlabel.data.budget import Splits
from fewlabel.data.randomness import seeded
from fewlabel.engines.region_panels import ShownSlice
from fewlabel.engines.stage_pictures import Pictured, StagePictures
from fewlabel.handlers.pretrained import PretrainedLoader
from fewlabel.losses import RegionContrastLoss
from fewlabel.networks.dense import DenseUNet
from fewlabel.networks.weights import load_weights
from fewlabel.transforms.feature_colors import feature_colors

SLAB, DRAWS = 2, 8  # of a volume: slices above and below whose samples are shown; one draw leaves a slice few


class RegionExamples(StagePictures):
    """Show the stages of :class:`~fewlabel.engines.ContrastivePretrainingStep` and of the fine-tuning after it.

    ``image``: the windowed image; of a volume the slice through the middle of the body along the last axis.
    ``superpixels``: outlines of its regions. ``sampling``: the regions that
    :meth:`~fewlabel.losses.RegionContrastLoss.sample` draws of one patch around the middle of that slice, and the
    pixels of each view; the frame is the patch. Of a volume, eight draws and the voxels at most two slices away, since
    one draw leaves little in a slice. Pre-training draws from patches at random places, and its views are turned and
    scaled, and may show a window of the patch (``local_window``); here both views are this patch. ``features_before``,
    ``features_after``: principal components, as :func:`~fewlabel.transforms.feature_colors`, of what the head of the
    network reads, of an untrained network (drawn at ``seed``) and of the pre-trained one, black outside of the body.
    One basis serves all images of a network: colors compare between images, not between the two networks.
    ``result``: the classes that the fine-tuned network finds.

    Panels of stages that are not there are left out. Files and index: see
    :class:`~fewlabel.engines.stage_pictures.StagePictures`.

    Args:
        output_dir: the folder above ``examples``.
        dataset: items with ``image`` (C, *space) in [0, 1] and ``regions`` (1, *space), -1 outside of the body, the
            list that was pre-trained on, not augmented.
        inferer: of validation; features take its windows too.
        loss: whose samples are shown; None: regions were not used.
        build: makes the network that was pre-trained, without arguments.
        pretrained: its weights; empty: nothing was pre-trained.
        network: returns the final logits (1, K, *space); None: there is no final network.
        ckpt_dir: folder of its weights.
        splits: whose labels must not be opened meanwhile; None guards none.
        class_names: of the result.
        device: where networks run.
        seed: of the untrained network and of the samples.
        count: how many images; fewer where the list is short.
        size_px: longer side of the pictures.

    Note:
        Memory beyond one item: features of one slice each, and what validation needs for one image.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Any,
        inferer: SlidingWindowInferer,
        loss: RegionContrastLoss | None = None,
        build: Callable[[], DenseUNet] | None = None,
        pretrained: str | Path = "",
        network: nn.Module | None = None,
        ckpt_dir: str | Path = "",
        splits: Splits | None = None,
        class_names: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        count: int = 3,
        size_px: int = 384,
    ) -> None:
        super().__init__(output_dir, dataset, splits, class_names, count)
        self.inferer, self.loss, self.build, self.pretrained = inferer, loss, build, str(pretrained)
        self.network, self.ckpt_dir, self.device = network, Path(ckpt_dir), device
        self.seed, self.size_px = seed, size_px

    @torch.no_grad()
    def pictures(self, places: Sequence[int]) -> Iterator[Pictured]:
        """Yield the pictures of some items; features of all are at hand before the first, for their common basis.

        Args:
            places: in the data set.
        """
        networks = self._networks()
        if self.network is not None:
            load_weights(self.network, self.ckpt_dir / "model.pt", key="ckpt_dir", strict=True)
            self.network.to(self.device).eval()
        shown = [self._shown(self.dataset[place], networks) for place in places]
        for name in networks:
            colors = feature_colors([one.features[name] for one in shown], [one.maps["regions"] >= 0 for one in shown])
            for one, color in zip(shown, colors, strict=True):
                one.features[name] = color
        for one in shown:
            yield Pictured(one.panels(self.size_px), one.slice)

    def _networks(self) -> dict[str, DenseUNet]:
        """Return the untrained and the pre-trained network, where something was pre-trained."""
        if not self.pretrained or self.build is None:
            return {}
        with seeded(self.seed % 2**32):
            before = self.build()
        with seeded(self.seed % 2**32):
            after = self.build()
        PretrainedLoader(after, self.pretrained, {}, key="pretrained").load()
        networks = {"features_before": before, "features_after": after}
        return {name: network.to(self.device).eval() for name, network in networks.items()}

    def _shown(self, item: dict[str, Any], networks: dict[str, DenseUNet]) -> ShownSlice:
        image, regions = (item[key].as_subclass(Tensor) for key in ("image", "regions"))
        body = regions[0] >= 0
        at = [_middle(side) for side in _box(body)[2:]]
        box = _box(body[..., at[0]] if at else body)
        middle = [*map(_middle, box), *at]
        maps = {"image": image[:1], "regions": regions.round().int()}
        if self.loss is not None:
            maps |= self._sampled(maps["regions"][0], middle)
        if self.network is not None:
            logits = self.inferer(image[None].to(self.device), self.network)
            maps["result"] = logits[0].argmax(dim=0, keepdim=True).cpu()
        cut = {name: (m[..., at[0]] if at else m)[:, *box] for name, m in maps.items()}
        features = {name: self._dense(image, at, network)[:, *box].cpu() for name, network in networks.items()}
        affine = item["image"].affine if at and isinstance(item["image"], MetaTensor) else None
        place = (at[0], image.shape[-1]) if at else None
        return ShownSlice({n: m[0] for n, m in cut.items()}, features, affine, place)

    def _sampled(self, regions: Tensor, middle: Sequence[int]) -> dict[str, Tensor]:
        """Mark drawn regions by numbers from 1, drawn voxels by their view, and the patch: (1, *space) each."""
        assert self.loss is not None
        volume = len(middle) == 3
        patch = tuple(map(_around, middle, self.inferer.roi_size, regions.shape))
        inside = regions[patch].contiguous()
        chosen, points, frame = (torch.zeros_like(regions) for _ in range(3))
        frame[patch], number = 1, 0
        for draw in range(DRAWS if volume else 1):
            drawn = self.loss.sample(inside[None], inside[None], self.seed + draw)
            pixels = [view[drawn.valid] for view in (drawn.pixels, drawn.pixels_2)]
            for label in inside.flatten()[pixels[0][:, 0]].tolist():
                number += 1
                chosen[patch][inside == label] = number
            for view, places in enumerate(pixels, 1):
                points[patch][torch.unravel_index(places.flatten(), inside.shape)] = view
        if volume:
            slab = points[..., max(0, middle[2] - SLAB) : middle[2] + SLAB + 1]
            points = slab.amax(dim=-1, keepdim=True).expand_as(points)
        return {"chosen": chosen[None], "points": points[None], "frame": frame[None]}

    def _dense(self, image: Tensor, at: Sequence[int], network: DenseUNet) -> Tensor:
        """Return the features that the head reads, of the whole picture or of one slice: (F, X, Y).

        The slices around the one that is wanted go through the inferer as channels of a picture, so that the other
        slices of the features are dropped window by window.
        """
        if not at:
            dense: Tensor = self.inferer(image[None].to(self.device), lambda x: network.decode(network.encode(x)))[0]
            return dense
        depth, inferer = int(self.inferer.roi_size[-1]), self.inferer
        around = _around(at[0], depth, image.shape[-1])
        slab = image[..., around]
        slab = nn.functional.pad(slab, (0, depth - slab.shape[-1]))
        flat = SlidingWindowInferer(inferer.roi_size[:-1], inferer.sw_batch_size, inferer.overlap, inferer.mode)

        def of_slice(x: Tensor) -> Tensor:
            volume = x.unflatten(1, (len(image), depth)).movedim(2, -1)
            return network.decode(network.encode(volume))[..., at[0] - around.start]

        picture: Tensor = flat(slab.movedim(-1, 1).flatten(0, 1)[None].to(self.device), of_slice)[0]
        return picture


def _box(body: Tensor) -> tuple[slice, ...]:
    """Return the smallest box around what is true, or all where nothing is."""
    found = body.nonzero()
    if not len(found):
        return tuple(slice(0, n) for n in body.shape)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(found.amin(dim=0), found.amax(dim=0), strict=True))


def _middle(side: slice) -> int:
    return int(side.start + side.stop) // 2


def _around(middle: int, width: int, size: int) -> slice:
    """Return as many places around the middle as there are, at most ``width``."""
    start = min(max(0, middle - width // 2), max(0, size - width))
    return slice(start, min(size, start + width))
