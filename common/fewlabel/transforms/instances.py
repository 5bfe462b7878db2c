# SPDX-License-Identifier: Apache-2.0
"""Turn the output of a network into numbered instances."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform
from torch import Tensor

from fewlabel.transforms._meta import like, plain
from fewlabel.transforms.detections import DetectionRules, detect
from fewlabel.transforms.instance_map import find_instances
from fewlabel.transforms.instance_rules import InstanceRules, foreground


class Instances(NamedTuple):
    """Instances of one image.

    Args:
        labels: (1, H, W) int32, 0 = background, 1 ... N in raster order of first pixels.
        kinds: (N,) int64, class of each instance, 1 ... K - 1.
        probability: (N,) float32, mean foreground probability of each instance.
    """

    labels: Tensor
    kinds: Tensor
    probability: Tensor


def instances_from_logits(
    scores: Tensor, rules: InstanceRules | DetectionRules | None = None, softmax: bool = True
) -> Instances:
    """Cut instances out of the scores of one image.

    Args:
        scores: (K, H, W), floating; channel 0 is the background. With K > 2 instances are cut out of what is no
            background, and each belongs to the class that is the most probable one in most of its pixels.
        rules: threshold, sizes and split; None takes the defaults of :class:`InstanceRules`. With
            :class:`DetectionRules` instances are disks around the peaks of each class.
        softmax: scores are logits; else probabilities.

    Returns:
        Label map, classes and probabilities, on the CPU.

    Raises:
        ValueError: not three dimensions, fewer than two channels, or probabilities outside ``[0, 1]``.

    Note:
        The work after the softmax is done on the CPU. Every repeat gives the same numbers.

    Example:
        >>> logits = torch.stack([torch.zeros(3, 5), torch.tensor([[1.0, 1, -1, -1, 2]]).expand(3, 5)])
        >>> found = instances_from_logits(logits, InstanceRules(min_object_px=1))
        >>> found.labels[0, 0].tolist(), [round(p, 3) for p in found.probability.tolist()]
        ([1, 1, 0, 0, 2], [0.731, 0.881])
    """
    if scores.ndim != 3:
        raise ValueError(f"expected scores (K, H, W), received shape {tuple(scores.shape)}.")
    if isinstance(rules, DetectionRules):
        probs = scores.detach().float()
        return Instances(*detect(probs.softmax(0) if softmax else probs, rules))
    probability, kinds = (None if x is None else x.cpu().numpy() for x in foreground(scores.detach(), softmax))
    assert probability is not None
    labels = np.zeros(probability.shape, np.int32)
    rules = InstanceRules() if rules is None else rules
    table = find_instances(probability, labels, rules, kinds, classes=scores.shape[0] - 1)
    return Instances(
        torch.from_numpy(labels)[None], torch.from_numpy(table.kinds), torch.from_numpy(table.probability).float()
    )


class InstancesFromLogitsd(MapTransform):
    """Replace scores by the label map of their instances.

    Classes and mean probabilities of the instances go to ``<key>_kinds`` and ``<key>_probability``; with three classes
    or more, the background among them, the class of each pixel of an instance goes to ``<key>_class``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        rules: InstanceRules | DetectionRules | None = None,
        softmax: bool = True,
        axes: str = "HW",
        allow_missing_keys: bool = False,
    ) -> None:
        """Say what the scores are and how instances are cut out.

        Args:
            keys: keys of scores (K, H, W), or (K, W, H).
            rules: see :class:`InstanceRules`, whose defaults None takes, and :class:`DetectionRules`.
            softmax: scores are logits; else probabilities.
            axes: order of the last two axes: ``HW`` as networks have it, ``WH`` after ``Invertd``. Instances are
                numbered along the rows of the picture either way.
            allow_missing_keys: skip keys that an item lacks instead of raising.

        Raises:
            ValueError: axes other than the two.
        """
        super().__init__(keys, allow_missing_keys)
        if axes not in ("WH", "HW"):
            raise ValueError(f"expected axes 'WH' or 'HW', received {axes!r}.")
        self.rules, self.softmax, self.axes = rules, softmax, axes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with label maps, int32, on the device of the scores."""
        out = dict(data)
        for key in self.key_iterator(out):
            classes = out[key].shape[0]
            out[key], out[f"{key}_kinds"], out[f"{key}_probability"] = self._found(out[key])
            if classes > 2:
                of_label = torch.cat([torch.zeros(1, dtype=torch.int64), out[f"{key}_kinds"]]).to(
                    plain(out[key]).device
                )
                out[f"{key}_class"] = like(of_label[plain(out[key]).long()].int(), out[key])
        return out

    def _found(self, scores: NdarrayOrTensor) -> tuple[NdarrayOrTensor, Tensor, Tensor]:
        values = plain(scores)
        turned = values.mT if self.axes == "WH" else values
        labels, kinds, probability = instances_from_logits(turned, self.rules, self.softmax)
        labels = labels.mT.contiguous() if self.axes == "WH" else labels
        return like(labels.to(values.device), scores), kinds, probability
