# SPDX-License-Identifier: Apache-2.0
"""What the bundle configs call: the checks of :func:`start`, the device, and the identity of a run."""

from __future__ import annotations

from fewlabel.bundle.caller import in_workflow, run_of
from fewlabel.bundle.device import auto_device
from fewlabel.bundle.identity import identity, own_data
from fewlabel.bundle.record import describe_run, save_record
from fewlabel.bundle.start import start

__all__ = ["auto_device", "describe_run", "identity", "in_workflow", "own_data", "save_record", "start"]
__all__ = ["auto_device", "describe_run", "identity", "in_workflow", "own_data", "run_of", "start"]
