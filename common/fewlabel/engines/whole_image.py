# SPDX-License-Identifier: Apache-2.0
"""Segment images that are larger than memory, in overlapping tiles, with instances that cross them whole."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fewlabel.data.image_regions import ImageRegions, image_size
from fewlabel.engines.disk_array import DiskArray
from fewlabel.engines.tiling import Tile, tiles
from fewlabel.errors import ConfigError, DataError
from fewlabel.files import write_json
from fewlabel.handlers.model import ModelLoader
from fewlabel.networks.weights import fingerprint
from fewlabel.transforms.detections import DetectionRules
from fewlabel.transforms.instance_files import InstanceFiles, staged
from fewlabel.transforms.instance_map import find_instances
from fewlabel.transforms.instance_rules import InstanceRules, foreground
from fewlabel.transforms.instance_table import InstanceTable
from fewlabel.transforms.output_names import OutputNames

logger = logging.getLogger(__name__)

_MAP_BYTES = 9  # of a pixel: probability float32, label int32, class uint8


class WholeImageSegmenter:
    """Segment large images into instances, and write what :class:`InstanceFiles` writes.

    Overlapping tiles go through the network in batches, read ahead by a thread; the core of each is kept, in maps on
    disk. Instances are then cut out of the whole map in strips, with the rules and the code of
    ``instances_from_logits``: sizes of objects and holes count in the whole image, and instances that cross tiles are
    one. Where a network's receptive field is smaller than ``overlap_px`` the result is that of the untiled image.

    An image that is finished is skipped when it is run again with the same file, weights and settings. One that was
    interrupted starts again; no file has its final name before it is complete. Under ``torchrun`` each process takes
    its share of the images.

    Note:
        Memory does not depend on the size of the image but for the table of its instances (some 200 bytes each): a few
        batches of tiles with the activations of the network, and about 150 MB for strips. Images that have to be
        decoded whole (PNG, JPEG) add their pixels, see :class:`fewlabel.data.ImageRegions`. While it works 8 bytes a
        pixel (9 with several classes) are taken on the disk of ``output_dir``.
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | Path,
        rules: InstanceRules | DetectionRules | None = None,
        files: InstanceFiles | None = None,
        normalize: Callable[[Tensor], Any] | None = None,
        device: str | torch.device = "cpu",
        ckpt_dir: str | Path = "",
        data_root_dir: str | Path = "",
        tile_px: int = 512,
        overlap_px: int = 128,
        align_px: int = 32,
        batch_size: int = 4,
        amp: bool = False,
        image_key: str = "image",
        progress: bool = True,
    ) -> None:
        """Say what segments, what is written where, and in which pieces.

        Args:
            network: (B, 3, H, W) float32 to logits (B, K, H, W); it is moved to ``device`` and run in evaluation mode.
            output_dir: folder of the results.
            rules: how instances are cut out; None takes the defaults.
            files: what is written; None takes the defaults.
            normalize: called with each tile, (3, H, W) RGB in ``[0, 1]``, pixel by pixel, such as MONAI's
                ``NormalizeIntensity`` with fixed numbers; None changes nothing.
            device: where the network computes.
            ckpt_dir: folder of ``model.pt``, loaded when there is something to do; empty leaves the network as it is.
            data_root_dir: sub-folders of the input below this folder are kept below ``output_dir``; empty keeps none.
            tile_px: side of a tile.
            overlap_px: least overlap of neighbors.
            align_px: the factor by which the network reduces its input; tiles begin at its multiples.
            batch_size: tiles in a batch.
            amp: half precision, on a GPU only.
            image_key: key of the image in items.
            progress: show a bar with the remaining time.

        Raises:
            ConfigError: sizes that do not fit.
        """
        if not 0 <= overlap_px <= tile_px - align_px:
            raise ConfigError(
                f"overlap_px {overlap_px} must leave at least {align_px} of tile_px {tile_px}: give larger tiles or "
                "less overlap."
            )
        if min(align_px, batch_size) < 1:
            raise ConfigError(f"align_px and batch_size start at 1, received {align_px} and {batch_size}.")
        self.network, self.device, self.normalize = network, torch.device(device), normalize
        self.rules = InstanceRules() if rules is None else rules
        self.files = InstanceFiles() if files is None else files
        self.output_dir, self.data_root_dir, self.ckpt_dir = Path(output_dir), data_root_dir, str(ckpt_dir)
        self.tiling = {"tile_px": tile_px, "overlap_px": overlap_px, "align_px": align_px}
        self.batch_size, self.amp = batch_size, amp and self.device.type == "cuda"
        self.image_key, self.progress = image_key, progress

    def run(self, items: Sequence[Mapping[str, Any]]) -> list[Path]:
        """Segment images, those that are not finished.

        Args:
            items: with the path of an image each; no item is no work.

        Returns:
            The file ``<name>_instances.json`` of each image of this process: its size, number of instances, and the
            settings that made it.

        Raises:
            DataError: images that cannot be read, all of them at once and before any work.
            ConfigError: two images whose results would have the same name, no weights, no space on the disk, or rules
                that find points, which need the whole score of an image at once.
        """
        if items and isinstance(self.rules, DetectionRules):
            raise ConfigError(
                f"{items[0][self.image_key]} is too large for the detection of points, which does not work tile by "
                "tile: raise max_pixels, or cut the image"
            )
        names = OutputNames(self.output_dir, self.data_root_dir, "instances")
        targets = [(Path(str(item[self.image_key])), names.of(str(item[self.image_key]))) for item in items]
        targets = targets[idist.get_rank() :: idist.get_world_size()]
        shapes = _shapes([path for path, _ in targets])
        if not targets:
            return []
        if self.ckpt_dir:
            ModelLoader(self.ckpt_dir, self.network).load()
        settings = self._settings()
        open_ = [(path, target) for path, target in targets if not _is_done(target, _inputs(path, settings))]
        logger.info("%d of %d images are done already", len(targets) - len(open_), len(targets))
        with self._bar(sum(self._count(shapes[path]) for path, _ in open_)) as bar, _evaluating(self.network):
            self.network.to(self.device)
            for path, target in open_:
                bar.set_description(path.name)
                self._segment(path, target, shapes[path], _inputs(path, settings), bar)
        return [_record(target) for _, target in targets]

    def _segment(
        self, path: Path, target: Path, shape: tuple[int, int], inputs: dict[str, Any], bar: tqdm[Any]
    ) -> None:
        """Write the results of one image, its record last."""
        began = time.monotonic()
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, shape)
        _record(target).unlink(missing_ok=True)
        with ImageRegions(path) as image, staged(target) as prefix, _Maps(prefix.parent / "maps", shape) as maps:
            probability, labels = maps.make("probability", np.float32), maps.make("labels", np.int32)
            kinds, classes = self._predict(image, probability, maps, bar)
            bar.set_postfix_str("instances")
            assert isinstance(self.rules, InstanceRules)  # run() refuses the others
            table = find_instances(probability, labels, self.rules, kinds, classes)
            bar.set_postfix_str("files")
            written = self.files.write(prefix, labels, table, _Picture(image))
            sizes = {file.name: file.stat().st_size for file in written}
            bar.set_postfix_str("")
        write_json(
            _record(target),
            {
                **{"image": str(path), "width": shape[1], "height": shape[0], "instances": table.count},
                "instances_by_class": self._by_class(table),
                "seconds": round(time.monotonic() - began, 1),
                "files": sizes,
                "inputs": inputs,
            },
        )

    def _predict(
        self, image: ImageRegions, probability: DiskArray, maps: _Maps, bar: tqdm[Any]
    ) -> tuple[DiskArray | None, int]:
        """Fill the map of probabilities and, of several classes, that of classes; return that and their number."""
        kinds, classes = None, 1
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for batch in chain(self._batches(probability.shape), [None]):
                present, coming = coming, batch and (batch, reader.submit(self._read, image, batch))
                if present is None:
                    continue
                seen, scores = present[0], self._scores(present[1].result())
                classes = scores.shape[1] - 1
                probs, votes = (None if x is None else x.cpu().numpy() for x in foreground(scores))
                assert probs is not None
                if votes is not None and kinds is None:
                    kinds = maps.make("kinds", np.uint8)
                for n, tile in enumerate(seen):
                    probability[tile.core] = probs[n][tile.inner]
                    if kinds is not None and votes is not None:
                        kinds[tile.core] = votes[n][tile.inner]
                bar.update(len(seen))
        return kinds, classes

    def _batches(self, shape: tuple[int, int]) -> Iterator[list[Tile]]:
        """Yield batches of tiles of equal size: those of the last row and column are smaller."""
        waiting: dict[tuple[int, int], list[Tile]] = {}
        for tile in tiles(shape, **self.tiling):
            batch = waiting.setdefault(tile.size, [])
            batch.append(tile)
            if len(batch) == self.batch_size:
                yield waiting.pop(tile.size)
        yield from waiting.values()

    def _read(self, image: ImageRegions, batch: Sequence[Tile]) -> Tensor:
        read = (image.read(*tile.seen) for tile in batch)
        return torch.stack([x if self.normalize is None else torch.as_tensor(self.normalize(x)) for x in read])

    @torch.inference_mode()
    def _scores(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=self.amp):
            scores: Tensor = self.network(batch.to(self.device, torch.float32))
        if scores.ndim != 4 or scores.shape[0] != len(batch) or scores.shape[2:] != batch.shape[2:]:
            raise ValueError(
                f"expected logits ({len(batch)}, K, {batch.shape[2]}, {batch.shape[3]}) of the network, received "
                f"{tuple(scores.shape)}."
            )
        return scores

    def _settings(self) -> dict[str, Any]:
        """All that results depend on, but for the image."""
        ramp = torch.linspace(0, 1, 3 * 256).view(3, 16, 16)
        normal = ramp if self.normalize is None else torch.as_tensor(self.normalize(ramp.clone()))
        return {
            "network": type(self.network).__name__,
            "weights": fingerprint(self.network),
            "normalize": hashlib.sha256(normal.float().contiguous().numpy().tobytes()).hexdigest(),
            "rules": asdict(self.rules),
            "output": asdict(self.files),
            "tiling": self.tiling,
            "amp": self.amp,
        }

    def _by_class(self, table: InstanceTable) -> dict[str, int]:
        return {self.files.name_of(kind): int((table.kinds == kind).sum()) for kind in range(1, table.classes + 1)}

    def _count(self, shape: tuple[int, int]) -> int:
        return sum(1 for _ in tiles(shape, **self.tiling))

    def _bar(self, total: int) -> AbstractContextManager[tqdm[Any]]:
        quiet = not self.progress or not total or idist.get_rank() != 0
        interval = 0.2 if sys.stderr.isatty() else 30.0
        bar: tqdm[Any] = tqdm(total=total, unit="tile", dynamic_ncols=True, mininterval=interval, disable=quiet)
        return bar


class _Maps(ExitStack):
    """The maps of an image, in a folder of their own."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        super().__init__()
        self.folder, self.map_shape = folder, shape
        folder.mkdir()

    def make(self, name: str, dtype: DTypeLike) -> DiskArray:
        """Return a new map, closed with the others."""
        return self.enter_context(closing(DiskArray(self.folder / name, self.map_shape, dtype)))


class _Picture:
    """An image as 8-bit windows, for drawing."""

    def __init__(self, image: ImageRegions) -> None:
        self.image, self.shape = image, image.shape

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.uint8]:
        return self.image.read(*window).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def _shapes(paths: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Sizes of all images; those that cannot be opened are reported together."""
    shapes, problems = {}, list[str]()
    for path in paths:
        try:
            shapes[path] = image_size(path)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return shapes


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}_instances.json")


def _inputs(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    status = path.stat()
    facts = {"bytes": status.st_size, "changed_ns": status.st_mtime_ns, **settings}
    return dict(json.loads(json.dumps(facts, default=str)))


def _is_done(target: Path, inputs: dict[str, Any]) -> bool:
    """Whether the record is there, of the same inputs, and every file that it lists still has its size."""
    try:
        record = json.loads(_record(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    files = ((target.with_name(name), size) for name, size in record.get("files", {}).items())
    return record.get("inputs") == inputs and all(f.is_file() and f.stat().st_size == size for f, size in files)


def _check_space(folder: Path, shape: tuple[int, int]) -> None:
    needed, free = _MAP_BYTES * shape[0] * shape[1], shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"output_dir '{folder}' has {free / 1e9:.1f} GB left and {needed / 1e9:.1f} GB are needed for an image of "
            f"{shape[1]} x {shape[0]} pixels: give another --output_dir."
        )
