# SPDX-License-Identifier: Apache-2.0
"""Localized region contrast: pre-train an encoder-decoder on whole images and on regions of them, without labels."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewlabel.engines.steps.base import Batch, TrainingStep, labeled_batches, plain
from fewlabel.engines.steps.windows import Window, draw_windows
from fewlabel.errors import ConfigError
from fewlabel.losses import PredictionLoss, QueueContrastLoss, RegionContrastLoss, gather_points
from fewlabel.networks import DenseProjector, DenseUNet, GlobalProjector, MovingAverage, cosine_decay
from fewlabel.networks.projectors import two_layers

KEYS = ("image", "image_2", "regions", "regions_2")
BRANCHES = ("moco", "byol", "simsiam", "none")


class View(NamedTuple):
    """One view of a batch.

    Attributes:
        image: (B, C, *space).
        pixels: (B, R, K), raster positions in the window; None where regions are not contrasted.
        window: where the decoder runs; None: everywhere.
    """

    image: Tensor
    pixels: Tensor | None = None
    window: Window | None = None


class Embedding(NamedTuple):
    """What one view of a batch becomes; a branch that is off gives None.

    Attributes:
        image: (B, D), of the whole image.
        points: (B, R, K, C), of sampled pixels.
    """

    image: Tensor | None
    points: Tensor | None


class ContrastivePretrainingStep(TrainingStep):
    """Train on two views of each image: ``loss`` = ``global`` + ``local_weight`` * ``local``.

    The global branch contrasts whole images, by the bottleneck; the local one pixels of regions, by the features that
    the head of the network will read. The first view is the query of :class:`~fewlabel.losses.RegionContrastLoss` and
    of the global loss, the second one the key; keys come from a moving average of the network (and of its projectors)
    whose decay rises along a cosine to 1, or from the network itself, without gradient.

    A batch is ``{"labeled": [{"image", "image_2", "regions", "regions_2"}]}``: images (B, C, *space) float32; maps
    (B, 1, *space) of whole numbers, -1 where there is no region, in which a region has one number in both views.

    The two wirings of the method: *shared*, both branches on one network; *dual*, one step with
    ``local_weight=0`` (or any finished training) for one network, a second step with ``global_branch="none"`` for
    another, and :class:`fewlabel.networks.DualUNet` to fine-tune the two.

    Only layers that a branch runs learn. The others, such as the network's head, are frozen for good: build the
    network anew for fine-tuning, and load ``trunk_state_dict()``.

    Args:
        network: gives bottleneck and dense features, e.g. :class:`fewlabel.networks.DenseBasicUNet`.
        total_iterations: of the whole training, over which the decay rises.
        loss: of the local branch; None takes its defaults.
        global_branch: ``"moco"`` (queue of negatives), ``"byol"`` (prediction of the moving average), ``"simsiam"``
            (prediction of the other view) or ``"none"``.
        local_weight: lambda; 0 switches the local branch, and with it the decoder, off.
        local_window: edges of the window in which regions are drawn and the decoder runs, as a share of those of the
            view; the encoder sees the whole view. Half the edges are a quarter of the decoder's cost in 2-D and an
            eighth in 3-D. The window of the key is where the query's regions are in its view. 1: the whole view.
        channels: of the projection of an image.
        dense_channels: of the projection of a pixel; 64, 128 or 256 are the fastest on a GPU.
        momentum: decay of the moving average at first.
        queue_size: keys that MoCo's queue holds.
        global_temperature: of MoCo's loss.
        key_encoder: ``"momentum"`` or ``"shared"``; None is shared for SimSiam and momentum for the others.
        symmetric: each view in turn is the query, which doubles the passes through the moving average and adds one
            through the network; None: for BYOL, and where the key encoder is shared.

    Raises:
        ConfigError: when an option is out of range, options do not go together, or the network is of another kind.

    Note:
        Regions and pixels are drawn from PyTorch's CPU generator, which :class:`fewlabel.engines.StreamTrainer` seeds
        by (seed, iteration, rank): the same on a resume. BatchNorm in the encoder lets MoCo's query recognize the
        batch of its key; prefer instance or group norm, or many processes.

    References:
        Yan et al., Localized region contrast, MICCAI 2023, arXiv:2304.03406, re-implemented from the abstract. MoCo v2
        arXiv:2003.04297, BYOL arXiv:2006.07733, SimSiam arXiv:2011.10566; widths of projectors are our choice.
    """

    labeled_streams = "single"
    loss: RegionContrastLoss

    def __init__(
        self,
        network: DenseUNet,
        total_iterations: int,
        loss: RegionContrastLoss | None = None,
        global_branch: str = "moco",
        local_weight: float = 1.0,
        channels: int = 128,
        dense_channels: int = 128,
        momentum: float = 0.99,
        queue_size: int = 16384,
        global_temperature: float = 0.2,
        key_encoder: str | None = None,
        symmetric: bool | None = None,
        local_window: float = 1.0,
    ) -> None:
        super().__init__(network)
        self.loss = loss if loss is not None else RegionContrastLoss()
        key_encoder = key_encoder or ("shared" if global_branch == "simsiam" else "momentum")
        _check_parts(network, self.loss, global_branch, local_weight, key_encoder)
        _check_numbers(local_weight, local_window, momentum, total_iterations)
        self.global_branch, self.local_weight, self.local_window = global_branch, local_weight, local_window
        self.momentum, self.total_iterations = momentum, total_iterations
        self.symmetric = key_encoder == "shared" or global_branch == "byol" if symmetric is None else symmetric
        self.heads = _heads(network, global_branch, local_weight, channels, dense_channels)
        self.global_loss, self.predictor = _global_parts(global_branch, channels, queue_size, global_temperature)
        network.train_only([*network.encoder_parts(), *(network.decoder_parts() if local_weight else [])])
        self.target: nn.ModuleDict | None = None
        if key_encoder == "momentum":
            online = nn.ModuleDict({"network": network, "heads": self.heads})
            self.target = copy.deepcopy(online).requires_grad_(False)
            self._average = MovingAverage(self.target, online, buffers=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``; its terms ``global`` and ``local``, where they have a weight; and diagnostics.

        ``global_top1``: how often the right image was the most similar one. ``positive_similarity``: mean cosine of
        pixels of one region. ``valid_regions``: regions that were drawn, mean over images.
        """
        images, regions = self._views(batch)
        views = [View(image) for image in images]
        if self.local_weight:
            views, valid = self._sample(images, regions)
        queries = [self._embed(self.network, self.heads, view) for view in views[: 1 + self.symmetric]]
        keys = self._keys(views, queries)
        terms: dict[str, Tensor] = {}
        if self.global_loss is not None:
            parts = _mean([self._global(query.image, keys[1 - v].image) for v, query in enumerate(queries)])
            terms |= {"global": parts["loss"], "global_top1": parts["top1"]}
        if self.local_weight:
            parts = _mean([self._local(query.points, keys[1 - v].points, valid) for v, query in enumerate(queries)])
            terms |= {"local": parts.pop("loss"), **parts}
        weights = {"global": 1.0, "local": self.local_weight}
        return {"loss": torch.stack([weights[n] * terms[n] for n in weights if n in terms]).sum(), **terms}

    def after_step(self, iteration: int) -> None:
        """Let the moving average follow the network.

        Args:
            iteration: the trainer's, counted from 1.
        """
        super().after_step(iteration)
        if self.target is not None:
            self._average.update(cosine_decay(iteration, self.total_iterations, self.momentum))

    def restart_average(self) -> None:
        """Set the moving average to the network, after weights were loaded into it."""
        if self.target is not None:
            self._average.update(0.0)

    def _views(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Return the two images and, for the local branch, the two maps as (B, *space) integers."""
        (stream,) = labeled_batches(batch, 1)
        wanted = KEYS if self.local_weight else KEYS[:2]
        if missing := [key for key in wanted if key not in stream]:
            raise ConfigError(f"pre-training needs {', '.join(missing)}: let the preprocessing make two views")
        images, maps = ([plain(stream[key]) for key in keys] for keys in (wanted[:2], wanted[2:]))
        if len(images[0]) < 2 and self.predictor is not None:
            raise ConfigError(
                f"global_branch {self.global_branch} normalizes over the batch: set batch_size to 2 or more"
            )
        return images, [m.squeeze(1).round().int() if m.is_floating_point() else m.squeeze(1) for m in maps]

    def _sample(self, images: list[Tensor], regions: list[Tensor]) -> tuple[list[View], Tensor]:
        """Draw windows, where they are wanted, regions and pixels; return the views and which regions there are."""
        windows: tuple[Window | None, Window | None] = (None, None)
        if self.local_window < 1:
            stride = self.network.stride()
            windows = draw_windows(regions[0], regions[1], self.local_window, stride)
            regions = [w.crop(m, stride) for w, m in zip(windows, regions, strict=True) if w]
        points = self.loss.sample(regions[0], regions[1], int(torch.randint(2**62, ())))
        return [View(*parts) for parts in zip(images, points[:2], windows, strict=True)], points.valid

    def _embed(self, network: Any, heads: Any, view: View) -> Embedding:
        features = network.encode(view.image)
        whole = heads["image"](features[-1]) if "image" in heads else None
        if view.pixels is None:
            return Embedding(whole, None)
        dense = network.decode(view.window.crop_features(features) if view.window else features)
        return Embedding(whole, heads["points"](gather_points(dense, view.pixels)))

    @torch.no_grad()
    def _keys(self, views: list[View], queries: list[Embedding]) -> dict[int, Embedding]:
        """Return the keys of each view that is one."""
        if self.target is not None:
            network, heads = self.target["network"], self.target["heads"]
        elif self.symmetric:
            return dict(enumerate(queries))
        else:
            network, heads = self.network, self.heads
        return {v: self._embed(network, heads, views[v]) for v in range(not self.symmetric, 2)}

    def _global(self, query: Tensor | None, key: Tensor | None) -> dict[str, Tensor]:
        assert query is not None and key is not None and self.global_loss is not None
        terms: dict[str, Tensor] = self.global_loss(query if self.predictor is None else self.predictor(query), key)
        return terms

    def _local(self, query: Tensor | None, key: Tensor | None, valid: Tensor) -> dict[str, Tensor]:
        assert query is not None and key is not None
        terms: dict[str, Tensor] = self.loss(query, key.detach(), valid)
        return terms


def _heads(network: DenseUNet, branch: str, local_weight: float, channels: int, dense_channels: int) -> nn.ModuleDict:
    """Make the projectors that the branches need."""
    heads: dict[str, nn.Module] = {}
    if branch != "none":
        heads["image"] = GlobalProjector(network.widths()[-1], channels, norm=branch != "moco")
    if local_weight:
        heads["points"] = DenseProjector(network.dense_width(), dense_channels)
    return nn.ModuleDict(heads)


def _global_parts(
    branch: str, channels: int, queue_size: int, temperature: float
) -> tuple[nn.Module | None, nn.Module | None]:
    """Make the loss of the global branch and, where it predicts, the predictor."""
    if branch == "none":
        return None, None
    if branch == "moco":
        return QueueContrastLoss(channels, queue_size, temperature), None
    hidden = channels // 4 if branch == "simsiam" else channels
    return PredictionLoss(), two_layers(channels, hidden, channels, norm=True)


def _mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average over directions."""
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def _check_parts(network: nn.Module, loss: Any, branch: str, local_weight: float, key_encoder: str) -> None:
    if not isinstance(network, DenseUNet):
        kind = type(network).__name__
        raise ConfigError(f"network_def {kind} gives no dense features: take fewlabel.networks.DenseBasicUNet or alike")
    if branch not in BRANCHES:
        raise ConfigError(f"global_branch '{branch}' is none of {', '.join(BRANCHES)}")
    if branch == "none" and not local_weight:
        raise ConfigError("global_branch is none and local_weight is 0: nothing would be learned")
    if key_encoder not in ("momentum", "shared"):
        raise ConfigError(f"key_encoder '{key_encoder}' is neither momentum nor shared")
    fixed = {"moco": "momentum", "byol": "momentum", "simsiam": "shared"}.get(branch, key_encoder)
    if key_encoder != fixed:
        raise ConfigError(f"global_branch {branch} needs key_encoder {fixed}, not {key_encoder}")
    if loss.symmetric:
        raise ConfigError("symmetric of the region contrast is for one network: give symmetric to the step instead")


def _check_numbers(local_weight: float, local_window: float, momentum: float, total: int) -> None:
    if local_weight < 0:
        raise ConfigError(f"local_weight is {local_weight}: give 0 to switch the local branch off, or more")
    if not 0 < local_window <= 1:
        raise ConfigError(f"local_window is {local_window}: give a share above 0, up to 1 for the whole patch")
    if not 0.0 <= momentum <= 1.0:
        raise ConfigError(f"momentum is {momentum}: give a share from 0 to 1")
    if total < 1:
        raise ConfigError(f"total_iterations is {total}: give max_epochs times epoch_length")
