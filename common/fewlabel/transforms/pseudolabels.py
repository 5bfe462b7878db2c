# SPDX-License-Identifier: Apache-2.0
"""Dictionary transforms of :mod:`fewlabel.pseudolabels`, whose functions are their array twins.

Options of the functions are given by name and checked at construction. Images are single ones, channel first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor, nn

from fewlabel import pseudolabels
from fewlabel.transforms._meta import like, paired_keys, plain


class _Functiond(MapTransform):
    """Apply a function of a batch to single images."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Choose the keys.

        Args:
            keys: keys of what the function takes.
            output_keys: keys of what it returns, one per key; None overwrites.
            allow_missing_keys: skip keys that an item lacks instead of raising.
            **options: arguments of the function, by name.

        Raises:
            ValueError: numbers of keys and output keys that differ.
            TypeError: an option that the function does not have.
        """
        super().__init__(keys, allow_missing_keys)
        self.output_keys = paired_keys(self.keys, output_keys)
        inspect.signature(type(self).function).bind_partial(None, **options)
        self.options = options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the results."""
        out = dict(data)
        for key, name in self.key_iterator(out, self.output_keys):
            out[name] = self.compute(out[key], out)
        return out

    def compute(self, img: Any, data: Mapping[Hashable, Any]) -> Any:
        """Return the result for one value of ``data``."""
        return like(type(self).function(plain(img)[None], **self.options)[0], img)


class _WithMapd(_Functiond):
    """Apply a function of images and their activation maps."""

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection | None = None,
        map_key: str | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Choose the keys.

        Args:
            keys: keys of images (3, H, W), RGB in [0, 1].
            output_keys: keys of the results, one per key; None overwrites.
            map_key: key of the activation map (1, H, W); None takes colors alone.
            allow_missing_keys: skip keys that an item lacks instead of raising.
            **options: further arguments of the function, by name.

        Raises:
            ValueError: numbers of keys and output keys that differ.
            TypeError: an option that the function does not have.
        """
        super().__init__(keys, output_keys, allow_missing_keys, **options)
        self.map_key = map_key

    def compute(self, img: Any, data: Mapping[Hashable, Any]) -> Any:
        """Return the result for one image of ``data``."""
        maps = None if self.map_key is None else plain(data[self.map_key])[None]
        return like(type(self).function(plain(img)[None], maps, **self.options)[0], img)


class OpticalDensityd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.optical_density`."""

    function = staticmethod(pseudolabels.optical_density)


class StainDensitiesd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.stain_densities`."""

    function = staticmethod(pseudolabels.stain_densities)


class OtsuWatershedd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.otsu_watershed`."""

    function = staticmethod(pseudolabels.otsu_watershed)


class CleanMaskd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.clean_mask`."""

    function = staticmethod(pseudolabels.clean_mask)


class SemanticClustersd(_WithMapd):
    """Dictionary version of :func:`fewlabel.pseudolabels.semantic_clusters`."""

    function = staticmethod(pseudolabels.semantic_clusters)


class StainClassesd(_WithMapd):
    """Dictionary version of :func:`fewlabel.pseudolabels.stain_classes`."""

    function = staticmethod(pseudolabels.stain_classes)


class Peaksd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.peaks`: scores (1, H, W) become points (P, 2)."""

    function = staticmethod(pseudolabels.peaks)

    def compute(self, img: Any, data: Mapping[Hashable, Any]) -> Tensor:
        """Return the points of one score map, a plain tensor."""
        return pseudolabels.peaks(plain(img)[None], **self.options)[0]


class VoronoiTargetsd(_Functiond):
    """Dictionary version of :func:`fewlabel.pseudolabels.voronoi_targets`: points become a label of an image's size."""

    function = staticmethod(pseudolabels.voronoi_targets)

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Choose the keys.

        Args:
            keys: keys of points (P, 2).
            image_key: key of the image (C, H, W) that the points belong to; labels get its metadata.
            output_keys: keys of the labels, one per key; None overwrites.
            allow_missing_keys: skip keys that an item lacks instead of raising.
            **options: further arguments of the function, by name.

        Raises:
            ValueError: numbers of keys and output keys that differ.
            TypeError: an option that the function does not have.
        """
        super().__init__(keys, output_keys, allow_missing_keys, **options)
        self.image_key = image_key

    def compute(self, img: Any, data: Mapping[Hashable, Any]) -> Any:
        """Return the label of one list of points."""
        image = data[self.image_key]
        return like(pseudolabels.voronoi_targets(plain(img), tuple(image.shape[1:]), **self.options), image)


class SelfActivationMapd(_Functiond):
    """The map of :class:`fewlabel.pseudolabels.ClusterSegmenter`, whose options it has, as a dictionary transform."""

    function = staticmethod(pseudolabels.ClusterSegmenter)

    def __init__(
        self,
        keys: KeysCollection,
        network: nn.Module,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Choose keys and network.

        Args:
            keys: keys of images (3, H, W), RGB in [0, 1].
            network: images (B, 3, H, W) to scores (B, 1).
            output_keys: keys of the maps (1, H, W), one per key; None overwrites.
            allow_missing_keys: skip keys that an item lacks instead of raising.
            **options: ``layers``, ``order``, ``toward`` and ``margin_px`` of the segmenter.

        Raises:
            ValueError: numbers of keys and output keys that differ; no layers are named.
            TypeError: an option that there is not.
        """
        super().__init__(keys, output_keys, allow_missing_keys, **options)
        self.segmenter = pseudolabels.ClusterSegmenter(network, **options)

    def compute(self, img: Any, data: Mapping[Hashable, Any]) -> Any:
        """Return the map of one image."""
        maps = self.segmenter.maps(plain(img)[None])
        assert maps is not None
        return like(maps[0], img)
