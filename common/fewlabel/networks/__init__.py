# SPDX-License-Identifier: Apache-2.0
"""Architectures that MONAI lacks, its own opened for pre-training, two networks side by side, heads, and averaging."""

from __future__ import annotations

from fewlabel.networks.build_dense import dense_unet
from fewlabel.networks.dense import DenseBasicUNet, DenseDynUNet, DenseFlexibleUNet, DenseUNet
from fewlabel.networks.dual import DualUNet
from fewlabel.networks.ema import MovingAverage, cosine_decay, ema_update, ramped_decay
from fewlabel.networks.encoder_unet import EncoderUNet
from fewlabel.networks.heads import Classifier, LogitHead, Projector
from fewlabel.networks.projectors import DenseProjector, GlobalProjector
from fewlabel.networks.res_unet34 import ResUNet34
from fewlabel.networks.score_network import ScoreNetwork
from fewlabel.networks.twin import Twin, mean_log_probability, mean_logit
from fewlabel.networks.weights import load_weights, read_weights

__all__ = [
    "Classifier",
    "DenseBasicUNet",
    "DenseDynUNet",
    "DenseFlexibleUNet",
    "DenseProjector",
    "DenseUNet",
    "DualUNet",
    "EncoderUNet",
    "GlobalProjector",
    "LogitHead",
    "MovingAverage",
    "Projector",
    "ResUNet34",
    "ScoreNetwork",
    "Twin",
    "cosine_decay",
    "dense_unet",
    "ema_update",
    "load_weights",
    "mean_log_probability",
    "mean_logit",
    "ramped_decay",
    "read_weights",
]
