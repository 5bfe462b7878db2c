# SPDX-License-Identifier: Apache-2.0
"""Say how undecided a segmentation is, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform

from fewlabel.transforms._meta import like, paired_keys, plain


class BinaryEntropy(Transform):
    r"""Return the entropy of a foreground probability in bits.

    :math:`H(p) = -p \log_2 p - (1-p) \log_2 (1-p)`: 0 where the network is certain, 1 where it cannot decide.

    Example:
        >>> BinaryEntropy()(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0.0, 1.0, 0.0]
    """

    def __call__(self, probs: NdarrayOrTensor) -> NdarrayOrTensor:
        """Convert probabilities, element by element.

        Args:
            probs: any shape, floating point in ``[0, 1]``.

        Returns:
            The same shape and container, float32 in ``[0, 1]``.

        Raises:
            ValueError: values outside ``[0, 1]`` (logits need ``Activationsd(sigmoid=True)`` first) or NaN.
        """
        p = plain(probs).float()
        if p.numel() and not (float(p.min()) >= 0.0 and float(p.max()) <= 1.0):
            raise ValueError(
                f"expected probabilities in [0, 1], received {float(p.min()):.6g} to {float(p.max()):.6g}."
            )
        bits = (torch.special.entr(p) + torch.special.entr(1.0 - p)).div_(math.log(2.0))
        return like(bits.clamp_(max=1.0), probs)


class BinaryEntropyd(MapTransform):
    """Dictionary version of :class:`BinaryEntropy`."""

    def __init__(
        self, keys: KeysCollection, output_keys: KeysCollection | None = None, allow_missing_keys: bool = False
    ) -> None:
        """Choose the keys.

        Args:
            keys: keys of the probabilities.
            output_keys: keys of the entropies, one per key; None overwrites the probabilities.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ValueError: numbers of keys and output keys that differ.
        """
        super().__init__(keys, allow_missing_keys)
        self.output_keys = paired_keys(self.keys, output_keys)
        self.transform = BinaryEntropy()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the entropies."""
        out = dict(data)
        for key, name in self.key_iterator(out, self.output_keys):
            out[name] = self.transform(out[key])
        return out
