# SPDX-License-Identifier: Apache-2.0
"""Build timm models from configs: weights from nowhere, from timm or from a file, and one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import nn

from fewlabel.errors import ConfigError


def build_timm(name: str, options: Mapping[str, Any], pretrained: bool | str | Path, **arguments: Any) -> nn.Module:
    """Return a timm model; a file of weights is left to :func:`fewlabel.networks.load_weights`.

    Args:
        name: one of ``timm.list_models()``.
        options: the user's arguments of ``timm.create_model``.
        pretrained: True lets timm download its weights; anything else starts from random ones.
        **arguments: the caller's arguments of ``timm.create_model``.

    Raises:
        ConfigError: when timm does not know the model or its options, or its weights cannot be downloaded.
    """
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained is True, **arguments, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"pretrained weights of encoder '{name}' cannot be downloaded ({reason}): give a file or false"
        ) from None
    except (TypeError, ValueError, AssertionError, IndexError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"encoder '{name}' with encoder_options {dict(options)} cannot be built by timm: {reason}; choose another "
            "one of timm.list_models(), or other options"
        ) from None
    return model
