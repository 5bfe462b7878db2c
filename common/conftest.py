# SPDX-License-Identifier: Apache-2.0
"""Examples in modules are tests; those of GPU kernels need Triton, which only CUDA builds of torch bring along."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["fewlabel/kernels/*/triton.py"]
