# SPDX-License-Identifier: Apache-2.0
"""Keep metadata across a transform, and name the file in an error message."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type, convert_to_tensor

from fewlabel.errors import DataError

FILE_KEY = "filename_or_obj"


def plain(img: NdarrayOrTensor) -> torch.Tensor:
    """Return the data of an array or MetaTensor as a plain tensor (MetaTensor arithmetic is several times slower)."""
    return convert_to_tensor(img, track_meta=False)


def like(out: torch.Tensor, img: NdarrayOrTensor) -> NdarrayOrTensor:
    """Return ``out`` as the kind of container ``img`` is, with its metadata; the dtype is ``out``'s."""
    return convert_to_dst_type(out, img, dtype=out.dtype)[0]


def meta_of(img: Any) -> dict[str, Any]:
    """Return the metadata dictionary of a MetaTensor, an empty one for anything else."""
    return img.meta if isinstance(img, MetaTensor) else {}


def refusal(img: Any, problem: str) -> DataError:
    """Return the error that says which file has which problem; ``problem`` continues the sentence after its name."""
    name = meta_of(img).get(FILE_KEY)
    return DataError([f"'{name}' {problem}" if name else f"an array without file name {problem}"])


def paired_keys(keys: tuple[Hashable, ...], output_keys: KeysCollection | None) -> tuple[Hashable, ...]:
    """Return the keys of results, one per key; None overwrites.

    Raises:
        ValueError: numbers of keys and output keys that differ.
    """
    names = (output_keys,) if isinstance(output_keys, str) else output_keys
    paired = keys if names is None else tuple(names)
    if len(paired) != len(keys):
        raise ValueError(f"expected {len(keys)} output_keys, received {paired}.")
    return paired


def drop_trailing_singletons(img: NdarrayOrTensor) -> NdarrayOrTensor:
    """Return ``(C, W, H)`` for ``(C, W, H, 1, ...)``, as one slice of a volume format arrives; metadata follows."""
    while img.ndim > 3 and img.shape[-1] == 1:
        img = img[..., 0]
    if isinstance(img, MetaTensor) and len(shape := list(img.meta.get("spatial_shape", ()))) > 2 == img.ndim - 1:
        img.meta["spatial_shape"] = shape[:2]
    return img
