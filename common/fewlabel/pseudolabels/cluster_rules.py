# SPDX-License-Identifier: Apache-2.0
"""Which cluster of pixels are the nuclei: rules by name, none of which sees a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class ClusterMeans(NamedTuple):
    """What a rule may look at: means over the pixels of each cluster; nan where a cluster is empty.

    Args:
        density: (B, K) optical density, the mean of red, green and blue of the images.
        hematoxylin: (B, K) its share in that, by :func:`fewlabel.pseudolabels.stain_densities`.
        heat: (B, K) activation map; None where clusters come from colors alone.
        features: (B, K, D) what was clustered.
    """

    density: Tensor
    hematoxylin: Tensor
    heat: Tensor | None
    features: Tensor


Rule = Callable[[ClusterMeans], Tensor]


def darkest(means: ClusterMeans) -> Tensor:
    """Choose the cluster of highest mean optical density of the raw colors.

    Hematoxylin makes nuclei the darkest tissue; the map has no say. It is wrong where something else is darker: red
    blood cells or ink under pale nuclei.

    Args:
        means: of the clusters.

    Returns:
        (B,) int64, the index of the cluster of nuclei.

    References:
        Ours. The paper speaks of picking the foreground and is silent about how.
    """
    return _first_highest(means.density)


def bluest(means: ClusterMeans) -> Tensor:
    """Choose the cluster with most hematoxylin, the stain of nuclei, among however much eosin.

    Args:
        means: of the clusters.

    Returns:
        (B,) int64, the index of the cluster of nuclei.

    References:
        Ours, for tissue whose eosin is as dark as its nuclei.
    """
    return _first_highest(means.hematoxylin)


def hottest(means: ClusterMeans) -> Tensor:
    """Choose the cluster in which the activation map is highest; with the wrong sign of the map it is the lowest.

    Args:
        means: of the clusters.

    Returns:
        (B,) int64, the index of the cluster of nuclei.

    Raises:
        ValueError: clusters come from colors alone.

    References:
        Close to the released code of 2022, which took the cluster with most green in the painted map.
    """
    if means.heat is None:
        raise ValueError("the rule 'hottest' needs maps, got None")
    return _first_highest(means.heat)


def released(means: ClusterMeans) -> Tensor:
    """Choose the cluster whose first two features have the lowest sum of means.

    With ``features="released"`` these are blue of the painted map + red of the image, and green of the map + green of
    the image: low where the map is at its hottest (JET ends in dark red) and the image is dark.

    Args:
        means: of the clusters.

    Returns:
        (B,) int64, the index of the cluster of nuclei.

    References:
        The released code since October 2023 (its "color prior").
    """
    return _first_highest(-means.features[..., :2].sum(dim=-1))


RULES: dict[str, Rule] = {"bluest": bluest, "darkest": darkest, "hottest": hottest, "released": released}


def rule_of(rule: str | Rule) -> Rule:
    """Return a rule by its name, or itself.

    Args:
        rule: a name in ``RULES`` or a function of :class:`ClusterMeans`.

    Raises:
        ValueError: there is no such rule.
    """
    if callable(rule):
        return rule
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, expected one of {', '.join(map(repr, RULES))} or a function")
    return RULES[rule]


def _first_highest(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=-torch.inf).argmax(dim=1)
