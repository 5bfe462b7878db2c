# SPDX-License-Identifier: Apache-2.0
"""Random regions of an image and random pixels of a region, the same on every device, without loops.

Random numbers are counter-based: number (image, region, draw) of a (seed, step, stream) is entry image * 2^48 + region
* 2^24 + draw of the SplitMix64 sequence whose state is derived from (seed, step, stream). It is computed in int64,
whose products PyTorch wraps modulo 2^64 on every device; pixels by a compiled loop, or a kernel of the GPU. Nothing is
stored and nothing depends on the order, the number or the device of other draws. Nothing here reads back from a GPU.

References:
    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, doi:10.1145/2660193.2660195.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.regions.index import RegionIndex

__all__ = ["sample_pixels", "sample_regions"]

GAMMA, MIX_A, MIX_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SHIFTS = (30, 27, 31)
_ROUNDS = tuple(zip(SHIFTS, (MIX_A, MIX_B, 1), strict=True))
_REGIONS, _PIXELS = 0, 1  # what is drawn; keeps the two sequences of a (seed, step, stream) apart
IMAGE_BIT, REGION_BIT = 48, 24


def sample_regions(
    index: RegionIndex,
    per_image: int,
    seed: int,
    step: int,
    *,
    min_pixels: int = 1,
    eligible: Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """Draw regions of each image, uniformly without replacement.

    Args:
        index: of the label maps.
        per_image: R, how many.
        seed: any integer.
        step: any integer, the iteration say.
        min_pixels: regions with fewer pixels are not drawn.
        eligible: (B, L) bool, an additional condition: enough pixels in another view, say.
        stream: tells apart draws of one step.

    Returns:
        (B, R), int64: region numbers in random order; -1 once there is no eligible region left.

    Raises:
        ValueError: ``per_image`` or the number of images or regions is out of range, or ``eligible`` does not fit.

    Example:
        >>> from fewlabel.kernels.regions import region_index
        >>> index = region_index(torch.tensor([[0, 1, 1], [2, 2, 2]]))
        >>> sorted(sample_regions(index, 3, seed=0, step=0, min_pixels=2)[0].tolist())
        [-1, 1, 2]
    """
    _check_range(index, per_image, "per_image")
    if eligible is not None and (eligible.shape != index.labels.shape or eligible.dtype != torch.bool):
        expected, got = tuple(index.labels.shape), f"{tuple(eligible.shape)} {eligible.dtype}"
        raise ValueError(f"eligible must be {expected} bool, got {got}")
    may = index.counts >= min_pixels
    may = may if eligible is None else may & eligible
    regions = torch.arange(index.regions, device=index.device).expand(len(may), -1)
    bits = _random(index, regions.unsqueeze(-1), 1, _key(seed, step, stream, _REGIONS)).squeeze(-1)
    order = torch.where(may, _shifted(bits, 1), 2**63 - 1).argsort(dim=1, stable=True)[:, :per_image]
    drawn = torch.where(may.gather(1, order), order, -1)
    return torch.nn.functional.pad(drawn, (0, per_image - drawn.shape[1]), value=-1)


def sample_pixels(
    index: RegionIndex, regions: Tensor, per_region: int, seed: int, step: int, *, stream: int = 0
) -> Tensor:
    """Draw pixels of regions, uniformly with replacement.

    A draw u of 32 bits becomes entry floor(u n / 2^32) of the region's n pixels: the probability of a pixel is off
    from 1 / n by less than 2^-32.

    Args:
        index: of the label maps.
        regions: (B, R) integers, numbers of regions (from :func:`sample_regions`, say); negative for none.
        per_region: K, how many pixels of each.
        seed: any integer.
        step: any integer, the iteration say.
        stream: tells apart draws of one step: the two views of an image, say.

    Returns:
        (B, R, K), int64: raster positions in the image, for ``features.flatten(2)``; -1 where there is no region or
        it is empty. A region's draws do not depend on which others are asked for.

    Raises:
        ValueError: ``regions`` does not fit, a size is out of range, or (on a CPU; a GPU draws nothing for it) a number
            is not that of a region.

    Example:
        >>> from fewlabel.kernels.regions import region_index
        >>> index = region_index(torch.tensor([[0, 1, 1], [2, 2, 2]]))
        >>> sample_pixels(index, torch.tensor([[0, -1]]), 3, seed=0, step=0).tolist()
        [[[0, 0, 0], [-1, -1, -1]]]
    """
    _check_range(index, per_region, "per_region")
    batch, most = index.labels.shape
    if regions.ndim != 2 or regions.shape[0] != batch or regions.is_floating_point():
        raise ValueError(f"regions must be ({batch}, R) integers, got {tuple(regions.shape)} {regions.dtype}")
    if index.perm.shape[1] == 0 or most == 0:
        return regions.new_full((*regions.shape, per_region), -1, dtype=torch.int64)
    key = _key(seed, step, stream, _PIXELS)
    if index.device.type == "cuda" and _backend.has_triton():
        return _draw_compiled("triton", index, regions, per_region, key)
    if index.device.type != "cpu":
        return _draw(index, regions, per_region, key)
    return _draw_compiled("cpu", index, regions, per_region, key)


def _draw_compiled(backend: str, index: RegionIndex, regions: Tensor, per_region: int, key: int) -> Tensor:
    """The pixels by one compiled loop or launch; a pass over memory for every step of the arithmetic is slow."""
    form = _backend.form("regions", backend)
    drawn: Tensor = form.draw_pixels(index, regions.long().contiguous(), per_region, key + GAMMA)
    return drawn


def _draw(index: RegionIndex, regions: Tensor, per_region: int, key: int) -> Tensor:
    """The pixels by operators of PyTorch, on any device."""
    batch, pixels = index.perm.shape
    rows = regions.clamp(min=0).long()
    count = index.counts.gather(1, rows).masked_fill(regions < 0, 0).long().unsqueeze(-1)
    bits = _random(index, rows.unsqueeze(-1), per_region, key)
    entry = _shifted(bits, 32).mul_(count).bitwise_right_shift_(32)
    entry += index.offsets.gather(1, rows).unsqueeze(-1)
    drawn = index.perm.gather(1, entry.clamp_(max=pixels - 1).view(batch, -1)).view(entry.shape)
    return torch.where(count > 0, drawn, -1).long()


def _random(index: RegionIndex, regions: Tensor, draws: int, key: int) -> Tensor:
    """64 random bits for every draw of the regions (B, R, 1): (B, R, draws), int64."""
    image = torch.arange(len(regions), device=index.device).view(-1, 1, 1)
    counter = (image << IMAGE_BIT) + (regions << REGION_BIT) + torch.arange(draws, device=index.device)
    bits = counter.mul_(signed(GAMMA)).add_(signed(key + GAMMA))
    for shift, factor in _ROUNDS:
        bits ^= _shifted(bits, shift)
        bits = bits.mul_(signed(factor)) if factor != 1 else bits
    return bits


def _key(*parts: int) -> int:
    """Mix integers into one of 64 bits."""
    key = 0
    for part in parts:
        key = ((key ^ part) + GAMMA) % 2**64
        for shift, factor in _ROUNDS:
            key = (key ^ key >> shift) * factor % 2**64
    return key


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros; PyTorch fills with the sign."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def signed(value: int) -> int:
    """The int64 with the same lower 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


def _check_range(index: RegionIndex, draws: int, name: str) -> None:
    batch, regions = index.labels.shape
    if not 0 <= draws < 2**24:
        raise ValueError(f"{name} must be 0 to 2^24 - 1, got {draws}")
    if batch >= 2**15 or regions >= 2**24:
        raise ValueError(f"expected fewer than 2^15 images of fewer than 2^24 regions, got {batch} of {regions}")
