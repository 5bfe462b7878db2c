# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's engines: run folder, exact resume, progress, history, scores, examples, speed, leaks."""

from __future__ import annotations

from fewlabel.handlers.checkpoint import CheckpointHandler
from fewlabel.handlers.examples import ExamplesHandler
from fewlabel.handlers.history import HistoryHandler
from fewlabel.handlers.leak_guard import LeakGuardHandler
from fewlabel.handlers.model import ModelLoader
from fewlabel.handlers.pretrained import PretrainedLoader, PretrainedWriter
from fewlabel.handlers.progress import ProgressHandler
from fewlabel.handlers.run_folder import RunFolderHandler
from fewlabel.handlers.scores import ScoresHandler
from fewlabel.handlers.tensorboard import LazyWriter
from fewlabel.handlers.throughput import ThroughputHandler

__all__ = [
    "CheckpointHandler",
    "ExamplesHandler",
    "HistoryHandler",
    "LazyWriter",
    "LeakGuardHandler",
    "ModelLoader",
    "PretrainedLoader",
    "PretrainedWriter",
    "ProgressHandler",
    "RunFolderHandler",
    "ScoresHandler",
    "ThroughputHandler",
]
