# SPDX-License-Identifier: Apache-2.0
"""Write the report of a run folder, as training and evaluation do when they end.

Usage: ``python tools/report.py FOLDER [--baseline FOLDER]``.
"""

from __future__ import annotations

import fire

from fewlabel.report import write


def report(folder: str, baseline: str | None = None) -> None:
    """Write ``report.html`` into the folder of a run and print where it is.

    Args:
        folder: the output_dir of a run, finished or not.
        baseline: folder of the run to compare with; by default a run beside it with the same data and labels.
    """
    print(write(folder, baseline))


if __name__ == "__main__":
    fire.Fire(report)
