# SPDX-License-Identifier: Apache-2.0
"""Write what an untrained or self-supervised segmenter finds in unlabeled images: labels for the next stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from fewlabel.data.budget import Splits
from fewlabel.data.leaks import refuse_labels
from fewlabel.data.pseudo import pseudo_file
from fewlabel.errors import DataError
from fewlabel.files import atomic
from fewlabel.networks.weights import load_weights
from fewlabel.pseudolabels import ClusterSegmenter, peaks, voronoi_targets


class PseudoMaskWriter:
    """The work of a stage: the activation map and the pseudo mask of every unlabeled image.

    ``map/<n>_<name>.png`` holds the map, 0 to 1 as 0 to 255, and ``mask/<n>_<name>.png`` the mask, 0 or 1, on the grid
    of the image. What an earlier, killed run has finished is not made again.

    Args:
        segmenter: makes maps and masks of RGB images in [0, 1].
        ckpt_dir: folder with the weights of the segmenter's network; not read where it has none.
        dataset: items with an ``image`` (3, H, W) in [0, 1].
        splits: whose labels must not be opened meanwhile; None guards none.
        device: where the network runs.
    """

    def __init__(
        self,
        segmenter: ClusterSegmenter,
        ckpt_dir: str | Path,
        dataset: Any,
        splits: Splits | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.segmenter, self.ckpt_dir, self.dataset = segmenter, Path(ckpt_dir), dataset
        self.splits, self.device = splits, device

    def run(self, folder: Path) -> None:
        """Write all maps and masks.

        Args:
            folder: of the stage.
        """
        if self.segmenter.score_network is not None:
            load_weights(self.segmenter.score_network, self.ckpt_dir / "model.pt", key="stages_dir", strict=True)
        self.segmenter.to(self.device)
        _write_all(self.dataset, folder, ("map", "mask"), self._pictures, self.splits, "pseudo masks")

    def _pictures(self, images: Tensor) -> Iterator[np.ndarray]:
        images = images.to(self.device)
        maps = self.segmenter.maps(images)
        yield _bytes(255 * maps) if maps is not None else np.zeros(images.shape[2:], np.uint8)
        yield _bytes(self.segmenter.mask(images))


class VoronoiWriter:
    """The work of a stage: the points that a network sees in every unlabeled image, and their Voronoi labels.

    ``points/<n>_<name>.png`` marks them with 1 and ``voronoi/<n>_<name>.png`` holds 0 at edges of cells, 1 at seeds and
    255 elsewhere. What an earlier, killed run has finished is not made again.

    Args:
        network: returns logits (1, 2, H, W) of background and object.
        ckpt_dir: folder of its weights.
        dataset: items with an ``image`` (3, H, W) in [0, 1].
        splits: whose labels must not be opened meanwhile; None guards none.
        device: where the network runs.
        min_distance_px: see :func:`fewlabel.pseudolabels.peaks`; so are the next two.
        merge_px: peaks nearer than this become one.
        released: merge as the released code.
        seed_radius_px: of the seeds, see :func:`fewlabel.pseudolabels.voronoi_targets`.
    """

    def __init__(
        self,
        network: nn.Module,
        ckpt_dir: str | Path,
        dataset: Any,
        splits: Splits | None = None,
        device: torch.device | str = "cpu",
        min_distance_px: int = 6,
        merge_px: int = 20,
        released: bool = False,
        seed_radius_px: int = 2,
    ) -> None:
        self.network, self.ckpt_dir, self.dataset = network, Path(ckpt_dir), dataset
        self.splits, self.device = splits, device
        self.min_distance_px, self.merge_px, self.released = min_distance_px, merge_px, released
        self.seed_radius_px = seed_radius_px

    def run(self, folder: Path) -> None:
        """Write all points and Voronoi labels.

        Args:
            folder: of the stage.

        Raises:
            DataError: when no image at all has a point: there is nothing to learn from.
        """
        load_weights(self.network, self.ckpt_dir / "model.pt", key="stages_dir", strict=True)
        self.network.to(self.device).eval()
        _write_all(self.dataset, folder, ("points", "voronoi"), self._pictures, self.splits, "Voronoi labels")
        if not any(np.asarray(Image.open(file)).any() for file in sorted(folder.glob("points/*.png"))):
            raise DataError(
                [
                    "the point network finds no object in any image: look at the pseudo masks in stages_dir, then "
                    "change cluster_rule, beta or min_object_px, or train it longer (point_epochs)"
                ]
            )

    @torch.no_grad()
    def _pictures(self, images: Tensor) -> Iterator[np.ndarray]:
        scores = self.network(images.to(self.device)).float().softmax(dim=1)[:, 1:].sum(dim=1, keepdim=True)
        (found,) = peaks(scores, min_distance_px=self.min_distance_px, merge_px=self.merge_px, released=self.released)
        height, width = images.shape[2:]
        marked = np.zeros((height, width), np.uint8)
        inside = found[(found < torch.tensor([height, width], device=found.device)).all(dim=1)]
        marked[tuple(inside.T.cpu().numpy())] = 1
        yield marked
        yield _bytes(voronoi_targets(found, (height, width), self.seed_radius_px))


def _write_all(
    dataset: Any,
    folder: Path,
    kinds: Sequence[str],
    pictures: Callable[[Tensor], Iterator[np.ndarray]],
    splits: Splits | None,
    what: str,
) -> None:
    """Make the pictures of every item that lacks one; labels stay closed meanwhile."""
    allowed = [item["image"] for item in dataset.data]
    with refuse_labels(splits.held_back if splits is not None else {}, allowed):
        for index in tqdm(range(len(dataset)), what, unit="image", disable=None):
            files = [pseudo_file(folder, index, dataset.data[index], kind) for kind in kinds]
            if all(file.is_file() for file in files):
                continue
            image = dataset[index]["image"].as_subclass(Tensor)[None]
            for file, picture in zip(files, pictures(image), strict=True):
                with atomic(file) as temporary:
                    Image.fromarray(picture).save(temporary, format="PNG")


def _bytes(values: Tensor) -> np.ndarray:
    """Return the (H, W) picture of one image's (1, 1, H, W) or (1, H, W) values."""
    return values.reshape(values.shape[-2:]).round().to(torch.uint8).cpu().numpy()
