# SPDX-License-Identifier: Apache-2.0
"""A network that gives an image a score and is trained without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewlabel.errors import ConfigError
from fewlabel.networks.encoders import build_timm
from fewlabel.networks.weights import load_weights


class ScoreNetwork(nn.Module):
    """Map an image to a score, or several: a timm model whose classifier has as many outputs.

    What a proxy task makes the score answer to is read from the shallow layers by
    :func:`fewlabel.pseudolabels.self_activation_map`. The default is the network of PSM, Res2Net-101-26w-4s, with one
    output 43.16 M parameters.

    Args:
        encoder: name of a timm model with features at stride 4.
        encoder_options: further arguments of ``timm.create_model``, such as
            ``{"channels": [16, 32, 64, 128], "stem_width": 8}`` for a slim ``resnet18d``.
        pretrained: False starts from random weights without network access, as the method does; True lets timm download
            its weights; a path loads a ``.pt`` or ``.safetensors`` state dict of the timm model (what does not fit,
            such as a classifier of another size, is logged).
        outputs: number of scores; 1000 where the released code left ImageNet's classifier in place.

    Attributes:
        outputs: number of scores.
        shallow_layers: names of the blocks of the first stage (stride 4), shallow to deep, as in ``named_modules()``.

    Raises:
        ConfigError: when timm does not know the encoder or its options, when it has no features at stride 4, or when
            nothing in the file of ``pretrained`` fits.

    Note:
        Activations are kept channels-last, which is about a quarter faster on CPUs and what tensor cores want. Slim
        encoders of fewer than 16 channels should have shortcuts that pool, as ``resnet18d`` and ``resnet10t`` have:
        oneDNN's gradient of a strided 1x1 convolution of so few is faulty (its issue 6035).

    References:
        Chen et al., Exploring unsupervised cell recognition with prior self-activation maps, MICCAI 2023,
        arXiv:2308.11144. The encoder is that of Gao et al., Res2Net, IEEE TPAMI 2021, arXiv:1904.01169.

    Example:
        >>> network = ScoreNetwork("resnet10t", {"channels": [8, 8, 8, 8], "stem_width": 4})
        >>> network(torch.rand(2, 3, 64, 64)).shape, network.shallow_layers
        (torch.Size([2, 1]), ['encoder.layer1.0'])
    """

    def __init__(
        self,
        encoder: str = "res2net101_26w_4s",
        encoder_options: Mapping[str, Any] | None = None,
        pretrained: bool | str | Path = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.encoder = build_timm(encoder, encoder_options or {}, pretrained, num_classes=outputs)
        self.shallow_layers = [f"encoder.{name}" for name in _first_stage(self.encoder, encoder)]
        if pretrained and pretrained is not True:
            load_weights(self.encoder, pretrained, key="pretrained")

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores.

        Args:
            image: (B, 3, H, W) floating point.

        Returns:
            (B, outputs).
        """
        return self.encoder(image.contiguous(memory_format=torch.channels_last))


def _first_stage(model: Any, name: str) -> list[str]:
    """Return the names of the blocks that make the features of stride 4."""
    stages = [info["module"] for info in getattr(model, "feature_info", []) if info["reduction"] == 4]
    if not stages:
        raise ConfigError(f"encoder '{name}' has no features at stride 4: choose another one")
    stage = model.get_submodule(stages[-1])
    if not isinstance(stage, nn.Sequential):
        return [stages[-1]]
    return [f"{stages[-1]}.{block}" for block, _ in stage.named_children()]
