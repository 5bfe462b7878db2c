# SPDX-License-Identifier: Apache-2.0
"""Where the files made from an input file are written."""

from __future__ import annotations

from pathlib import Path

from fewlabel.errors import ConfigError


class OutputNames:
    """Name outputs after their inputs, and refuse two inputs whose outputs would have the same name.

    Args:
        output_dir: folder of the outputs.
        data_root_dir: sub-folders of the input below this folder are kept below ``output_dir``; empty keeps none.
        what: what is written, for the message.
    """

    def __init__(self, output_dir: str | Path, data_root_dir: str | Path = "", what: str = "outputs") -> None:
        self.output_dir, self.data_root_dir, self.what = Path(output_dir), data_root_dir, what
        self._written: dict[Path, str] = {}

    def of(self, source: str | Path) -> Path:
        """Return the path of an output without its ending, ``output_dir/<sub-folders>/<stem of the input>``.

        Args:
            source: the input file.

        Raises:
            ConfigError: another input has this name already.
        """
        path, folder = Path(source).resolve(), self.output_dir
        if str(self.data_root_dir):
            root = Path(self.data_root_dir).resolve()
            folder = folder / path.parent.relative_to(root) if path.is_relative_to(root) else folder
        suffixes = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
        target = folder / path.name.removesuffix(suffixes)
        if self._written.setdefault(target, str(source)) != str(source):
            raise ConfigError(
                f"the {self.what} of '{self._written[target]}' and '{source}' would have the same name: "
                "set data_root_dir to the folder above them, so that sub-folders are kept."
            )
        return target
