# SPDX-License-Identifier: Apache-2.0
"""Put a bundle into a MONAI Label app; ``docs/monailabel.md`` says what comes before and after.

``python tools/label_app.py --bundle bundles/endoscopic_tool_segmentation_mms --app monaibundle --profiles light``
"""

from __future__ import annotations

from collections.abc import Sequence

import fire
from monai.utils import ensure_tuple

from fewlabel.hub import add_to_label_app


def label_app(
    bundle: str, app: str, profiles: str | Sequence[str] = (), model: str | None = None, studies: str = ""
) -> None:
    """Copy a bundle into an app, merge profiles into its configs, and print how to start the server.

    Args:
        bundle: folder of the bundle.
        app: folder of the app ``monaibundle``.
        profiles: one or several overlays, such as light.
        model: weights to serve; by default those that a training with these profiles has written.
        studies: folder of images that the server will watch, in which the training looks for unlabeled ones.
    """
    target = add_to_label_app(bundle, app, ensure_tuple(profiles), model, studies)
    served = "with its model" if (target / "models" / "model.pt").is_file() else "without a model: it can only train"
    print(f"{target}, {served}")
    words = f"--app {app} --studies {studies or 'STUDIES'} --conf models {target.name} --conf sam2 false"
    print(f"MONAI_ZOO_SOURCE=local monailabel start_server {words} --host 127.0.0.1 --port 8000")


if __name__ == "__main__":
    fire.Fire(label_app)
