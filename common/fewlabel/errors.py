# SPDX-License-Identifier: Apache-2.0
"""Errors meant for the person at the keyboard: one clear sentence, exit code 1, no traceback.

They derive from :class:`SystemExit`, because MONAI and ignite wrap every ``Exception`` that passes through a
config in tracebacks of their own, which buries the one sentence that helps.
"""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(SystemExit):
    """A wrong key, value, path or combination of them in a config or on the command line.

    Args:
        message: one sentence that names the key or file and the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"fewlabel: {message}")
        self.message = message


class DataError(ConfigError):
    """Data that training cannot use; every bad case is reported at once.

    Args:
        problems: one sentence a case, each naming the file and the remedy.
        limit: how many are printed; the rest is counted.
    """

    def __init__(self, problems: Sequence[str], limit: int = 50) -> None:
        shown = list(problems[:limit])
        if len(problems) > limit:
            shown.append(f"... and {len(problems) - limit} more")
        head = f"{len(problems)} problem{'s' * (len(problems) != 1)} in the data:" if len(problems) > 1 else "data:"
        super().__init__("\n  ".join([head, *shown]) if len(problems) > 1 else f"{head} {shown[0]}")
        self.problems = list(problems)
