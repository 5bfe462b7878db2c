# SPDX-License-Identifier: Apache-2.0
"""Contrast of pixels that are sampled from the regions of two views of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.kernels.contrast import region_contrast
from fewlabel.kernels.regions import RegionIndex, region_index, sample_pixels, sample_regions


class RegionPoints(NamedTuple):
    """Which pixels stand for which region, in each view.

    Attributes:
        pixels: (B, R, K) int64, raster positions in the first view. Where there is no region, pixels of a regular
            grid: whatever is computed of them is left out, and BatchNorm finds an ordinary picture there.
        pixels_2: the same of the second view.
        valid: (B, R) bool, whether there is a region.
    """

    pixels: Tensor
    pixels_2: Tensor
    valid: Tensor


class RegionContrastLoss(nn.Module):
    """Pull together pixels of one region in two views, push away those of other regions.

    R regions are drawn among those with at least m pixels in both views, K pixels of each in each view. With unit
    vectors q[b,r,i] of the one view, k[b,r,j] of the other, s[b,r,i,r',j] = q[b,r,i] . k[b,r',j] / temperature and
    N[b,r,i] the sum of exp s[b,r,i,r',j] over the valid r' != r and all j,

        loss = mean over b, valid r, i, j of log(1 + N[b,r,i] exp(-s[b,r,i,r,j])).

    An image with fewer than two valid regions has no negatives and does not take part in the mean; where there is none
    at all, the loss is 0. How regions are numbered changes nothing: neither the samples nor the loss.

    Three calls make one step, so that only sampled pixels need to be projected::

        points = loss.sample(regions, regions_2, seed)
        query = projector(gather_points(features, points.pixels))
        terms = loss(query, key, points.valid)

    Args:
        regions: R, how many regions of an image.
        points: K, how many pixels of a region and view, drawn with replacement.
        min_pixels: m, how many pixels a region needs in either view.
        temperature: > 0.
        positives: ``"points"``, all K keys of the region; ``"pooled"``, one key, the mean of the K unit vectors brought
            back to length 1, for positives and negatives alike.
        negatives: ``"image"``, other regions of the same image; ``"batch"``, those of other images too. The same organ
            in two images is a negative then.
        symmetric: average over both directions, each view in turn the query and the other a constant; for two views
            through one network, both of which carry a gradient.

    Raises:
        ConfigError: when an option is out of range.

    References:
        Our reading of the contrastive sampling loss of Yan et al., Localized region contrast, MICCAI 2023,
        arXiv:2304.03406, after its abstract; no code was released. Points rather than means as in Bai et al.,
        Point-level region contrast, CVPR 2022, arXiv:2202.04639; ``"pooled"`` is near to DetCon (Henaff et al., ICCV
        2021, arXiv:2103.10957). All numbers are our choice.

    Example:
        >>> loss = RegionContrastLoss(regions=2, points=1)
        >>> z = torch.eye(2).reshape(1, 2, 1, 2)
        >>> terms = loss(z, z, torch.ones(1, 2, dtype=torch.bool))
        >>> round(terms["loss"].item(), 6), terms["positive_similarity"].item()
        (4.5e-05, 1.0)
    """

    def __init__(
        self,
        regions: int = 16,
        points: int = 32,
        min_pixels: int = 8,
        temperature: float = 0.1,
        positives: str = "points",
        negatives: str = "image",
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        _check_options(regions, points, min_pixels, temperature, positives, negatives)
        self.regions, self.points, self.min_pixels = regions, points, min_pixels
        self.temperature = temperature
        self.positives, self.negatives = positives, negatives
        self.symmetric = symmetric

    @torch.no_grad()
    def sample(self, regions: Tensor, regions_2: Tensor, seed: int) -> RegionPoints:
        """Draw regions that both views show, and pixels of each.

        Args:
            regions: (B, *space) integers, label map of the first view; negative where there is no region.
            regions_2: (B, *space) of the second view, where a region has the same label.
            seed: any integer; the same seed draws the same points, on every device.

        Raises:
            TypeError: the maps are not integers.
            ValueError: their shapes differ.

        Note:
            O(B S). Reads one number back from a GPU: call it before the networks run.
        """
        if regions.shape != regions_2.shape:
            raise ValueError(f"the views differ in shape: {tuple(regions.shape)} and {tuple(regions_2.shape)}")
        first, second = (
            region_index(ids, spatial_dims=1, num_labels=count) for ids, count in _same(regions, regions_2)
        )
        drawn = sample_regions(
            first, self.regions, seed, 0, min_pixels=self.min_pixels, eligible=second.counts >= self.min_pixels
        )
        return RegionPoints(self._pixels(first, drawn, seed, 0), self._pixels(second, drawn, seed, 1), drawn >= 0)

    def forward(self, query: Tensor, key: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Return the loss and what it was made of.

        Args:
            query: (B, R, K, C), projected points of the one view, floating, of any length.
            key: (B, R, K, C), those of the other view; detach them where they shall receive no gradient.
            valid: (B, R) bool.

        Returns:
            Scalars in float32 (float64 for float64 input). ``loss``: >= 0, differentiable; constants:
            ``positive_similarity``, the mean cosine of positive pairs, and ``valid_regions``, the mean number of valid
            regions of an image.
        """
        q, k = _unit(query), _unit(key)
        loss = self._one_way(q, k.detach() if self.symmetric else k, valid)
        if self.symmetric:
            loss = (loss + self._one_way(k, q.detach(), valid)) / 2
        with torch.no_grad():
            cosine = (q.mean(dim=2) * self._keys(k).mean(dim=2)).sum(dim=-1)
            similarity = torch.where(valid, cosine, 0).sum() / valid.sum().clamp(min=1)
        return {
            "loss": loss,
            "positive_similarity": similarity,
            "valid_regions": valid.sum() / q.new_tensor(len(valid)),
        }

    def _one_way(self, query: Tensor, key: Tensor, valid: Tensor) -> Tensor:
        return region_contrast(
            query, self._keys(key), valid, self.temperature, negatives=self.negatives, unit_norm=True
        )

    def _keys(self, key: Tensor) -> Tensor:
        return key if self.positives == "points" else F.normalize(key.mean(dim=2, keepdim=True), dim=-1)

    def _pixels(self, index: RegionIndex, drawn: Tensor, seed: int, view: int) -> Tensor:
        pixels = sample_pixels(index, drawn, self.points, seed, 0, stream=view)
        total = self.regions * self.points
        grid = torch.arange(total, device=pixels.device).mul_(index.ids.shape[1]).div_(total, rounding_mode="floor")
        return torch.where(pixels < 0, grid.view(1, self.regions, self.points), pixels)


def gather_points(features: Tensor, pixels: Tensor) -> Tensor:
    """Return the features at sampled pixels.

    Args:
        features: (B, C, *space), any strides.
        pixels: (B, R, K) int64, raster positions.

    Returns:
        (B, R, K, C), differentiable; the gradient is summed in a fixed order.

    Example:
        >>> gather_points(torch.arange(6.0).view(1, 1, 2, 3), torch.tensor([[[5, 0]]])).flatten().tolist()
        [5.0, 0.0]
    """
    images = torch.arange(len(pixels), device=pixels.device).view(-1, 1, 1)
    return features.flatten(2)[images, :, pixels]


def _same(regions: Tensor, regions_2: Tensor) -> list[tuple[Tensor, int]]:
    """Number the regions of both views alike, by their first pixel: (B, S) ids and how many there are, per view."""
    both = region_index(torch.cat([regions.flatten(1), regions_2.flatten(1)], dim=1), spatial_dims=1)
    if both.regions == 0:
        return [(ids, 0) for ids in both.ids.chunk(2, dim=1)]
    pixels = both.perm.shape[1]
    first = both.perm.gather(1, both.offsets[:, :-1].long().clamp(max=pixels - 1)).masked_fill(both.counts == 0, pixels)
    rank = first.argsort(dim=1, stable=True).argsort(dim=1)
    ids = torch.where(both.ids < 0, -1, rank.gather(1, both.ids.long().clamp(min=0)))
    return [(half.contiguous(), both.regions) for half in ids.int().chunk(2, dim=1)]


def _unit(points: Tensor) -> Tensor:
    return F.normalize(points if points.dtype == torch.float64 else points.float(), dim=-1)


def _check_options(
    regions: int, points: int, min_pixels: int, temperature: float, positives: str, negatives: str
) -> None:
    for name, value, least in (("regions", regions, 2), ("points", points, 1), ("min_pixels", min_pixels, 1)):
        if value < least:
            raise ConfigError(f"{name} of the region contrast is {value}: give {least} or more")
    if temperature <= 0:
        raise ConfigError(f"temperature of the region contrast is {temperature}: give a number above 0")
    if positives not in ("points", "pooled"):
        raise ConfigError(f"positives '{positives}' is neither points nor pooled")
    if negatives not in ("image", "batch"):
        raise ConfigError(f"negatives '{negatives}' is neither image nor batch")
