# SPDX-License-Identifier: Apache-2.0
"""The four terms of Min-Max Similarity for two segmentation networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.kernels.contrast import all_negative, info_nce
from fewlabel.networks.heads import Classifier, LogitHead, Projector

Pair = tuple[Tensor, Tensor]


class MinMaxSimilarityLoss(nn.Module):
    """Push apart what two networks say of different images, pull together what they say of the same one.

    z1, z2 are the logits of the two networks on their own labeled images, a1, a2 those on one unlabeled batch, and sg
    stops the gradient. Up to four terms, each with a weight of its own:

    - ``supervised``: loss(z1, y1) + loss(z2, y2);
    - ``negatives``: z1 and z2 show different images, so all pairs of locations of their classifier features are
      negatives of :func:`~fewlabel.kernels.contrast.all_negative`;
    - ``similarity``: loss(a1, sg sigmoid(a2)) + loss(a2, sg sigmoid(a1));
    - ``pixels``: a1 and a2 show the same images, so equal locations of their projector features are the positives of
      :func:`~fewlabel.kernels.contrast.info_nce`, all other locations of the image its negatives.

    The heads (classifiers, projectors) are random and stay so, in training-mode BatchNorm. A term whose weight is 0 is
    neither computed nor reported, and its head is not made.

    Args:
        loss: compares logits with a target in [0, 1], soft targets included.
        supervised_weight: lambda 1.
        negative_weight: lambda 2.
        similarity_weight: lambda 3.
        pixel_weight: lambda 4.
        temperature: of both contrastive terms.
        normalize: norm that features are brought to before contrast, ``"l2"`` or ``"l1"`` (released code).
        symmetric: both networks in turn are queries against the constant features of the other, averaged; False
            (released code): only the first is, so the second learns nothing from contrast.
        shared_heads: both networks share a head, so that equal predictions have equal features; False (released
            code): two heads, initialized apart.
        train_heads: let the heads learn.
        similarity_gradient: False (released code): ``similarity`` is a constant, divided by the batch size.
        channels: channels of the logits.

    Raises:
        ConfigError: when a weight is negative, one of the two networks would not learn, or ``normalize`` is unknown.

    References:
        Lou et al., Min-Max Similarity, IEEE TMI 2023, arXiv:2203.15177, Algorithm 1; all weights 0.25 as in the
        authors' code. Ours, where paper and code differ or are silent: L2 norm, symmetric, shared heads,
        differentiable ``similarity``, and no division of it by the batch size (the terms then keep their proportions
        at every batch size; at the released batch size of 1 the two agree).
    """

    def __init__(
        self,
        loss: nn.Module,
        supervised_weight: float = 0.25,
        negative_weight: float = 0.25,
        similarity_weight: float = 0.25,
        pixel_weight: float = 0.25,
        temperature: float = 0.07,
        normalize: str = "l2",
        symmetric: bool = True,
        shared_heads: bool = True,
        train_heads: bool = False,
        similarity_gradient: bool = True,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weights = {
            "supervised": supervised_weight,
            "negatives": negative_weight,
            "similarity": similarity_weight,
            "pixels": pixel_weight,
        }
        if temperature <= 0:
            raise ConfigError(f"temperature is {temperature}: give a number above 0")
        if normalize not in ("l1", "l2"):
            raise ConfigError(f"normalize '{normalize}' is neither l1 nor l2")
        self.temperature = temperature
        self.norm = int(normalize[1])
        self.symmetric = symmetric
        self.similarity_gradient = similarity_gradient
        self._check_weights()
        learns = [train_heads, train_heads and symmetric]  # a head whose features are only keys gets no gradient
        count = 1 if shared_heads else 2
        self.classifiers = _heads(Classifier, channels, learns[:count] if self.uses("negatives") else [])
        self.projectors = _heads(Projector, channels, learns[:count] if self.uses("pixels") else [])

    def uses(self, *terms: str) -> bool:
        """Whether any of these terms has a weight."""
        return any(self.weights[term] > 0 for term in terms)

    def forward(
        self, labeled: Pair | None, labels: Pair | None, unlabeled: Pair | None, ramp: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """Return the terms that have a weight, and their weighted sum.

        Args:
            labeled: z1, z2, each (B, K, H, W) logits; None when neither ``supervised`` nor ``negatives`` is used.
            labels: y1, y2, each (B, K, H, W) in [0, 1]; None as ``labeled``.
            unlabeled: a1, a2, each (B, K, H, W) logits of the same images; None when neither ``similarity`` nor
                ``pixels`` is used.
            ramp: 0 to 1, multiplies all weights but that of ``supervised``.

        Returns:
            Scalars: ``loss``, the weighted sum, and each term without its weight, by name.

        Raises:
            ValueError: when the logits of a used term are None.
        """
        terms: dict[str, Tensor] = {}
        if self.uses("supervised"):
            z, y = _given(labeled, "labeled"), _given(labels, "labels")
            terms["supervised"] = self.loss(z[0], y[0]) + self.loss(z[1], y[1])
        if self.uses("negatives"):
            q, k = self._features(self.classifiers, _given(labeled, "labeled"))
            terms["negatives"] = all_negative(q, k, self.temperature, symmetric=self.symmetric, unit_norm=True)
        if self.uses("similarity"):
            terms["similarity"] = self._similarity(_given(unlabeled, "unlabeled"))
        if self.uses("pixels"):
            q, k = self._features(self.projectors, _given(unlabeled, "unlabeled"))
            terms["pixels"] = info_nce(q, k, self.temperature, symmetric=self.symmetric, unit_norm=True)
        scales = {term: self.weights[term] * (1.0 if term == "supervised" else ramp) for term in terms}
        total = torch.stack([scales[name] * term for name, term in terms.items()]).sum()
        return {"loss": total, **terms}

    def _similarity(self, logits: Pair) -> Tensor:
        first, second = logits
        with torch.set_grad_enabled(self.similarity_gradient and torch.is_grad_enabled()):
            there: Tensor = self.loss(first, torch.sigmoid(second.detach().float()))
            back: Tensor = self.loss(second, torch.sigmoid(first.detach().float()))
        return there + back if self.similarity_gradient else (there + back) / first.shape[0]

    def _features(self, heads: nn.ModuleList, logits: Pair) -> Pair:
        """Return normalized (B, N, C) features of both networks; keys of a one-sided contrast are constants."""
        first, second = heads[0](logits[0]), heads[-1](logits[1] if self.symmetric else logits[1].detach())
        query, key = (
            F.normalize(f.flatten(2).transpose(1, 2).float(), p=self.norm, dim=-1, eps=1e-12) for f in (first, second)
        )
        return query, key if self.symmetric else key.detach()

    def _check_weights(self) -> None:
        for term, weight in self.weights.items():
            if weight < 0:
                raise ConfigError(f"the weight of the {term} term is {weight}: give 0 to switch it off, or more")
        taught = self.uses("supervised") or (self.symmetric and self.uses("negatives", "pixels"))
        if not taught and not (self.similarity_gradient and self.uses("similarity")):
            raise ConfigError("with these weights a network learns nothing: raise supervised_weight or another one")


def _heads(kind: type[Classifier] | type[Projector], channels: int, learns: list[bool]) -> nn.ModuleList:
    heads: list[LogitHead] = [kind(channels) for _ in learns]
    for head, learn in zip(heads, learns, strict=True):
        head.requires_grad_(learn)
    return nn.ModuleList(heads)


def _given(pair: Pair | None, name: str) -> Pair:
    if pair is None:
        raise ValueError(f"{name} is None, but a term with a weight above 0 needs it")
    return pair
