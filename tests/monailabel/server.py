# SPDX-License-Identifier: Apache-2.0
"""A lab's set-up of MONAI Label: an app with our bundle, a folder of frames of which some are labeled, a server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from fewlabel.data import phantoms
from fewlabel.files import write_json
from fewlabel.hub import add_to_label_app

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "endoscopic_tool_segmentation_mms"
PROGRAM = Path(sys.executable).parent / "monailabel"
ENVIRONMENT = {
    "MONAI_ZOO_SOURCE": "local",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MONAILABEL_PYEXE": sys.executable,  # its program would take the first python of the path
}


def call(line: list[str], folder: Path) -> str:
    """Run a program to its end and return what it printed; fail with all of that."""
    done = subprocess.run(
        line, cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def bundle_run(run_id: str, config: str, folder: Path, *keys: str) -> None:
    """Run a workflow of the bundle in its light profile, with all results below ``folder``."""
    files = str([f"configs/{name}.json" for name in (config, "light")])
    places = ["--output_dir", str(folder), "--ckpt_dir", str(folder / "models")]
    call([sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, *places, *keys], BUNDLE)


def make_app(root: Path, model: Path, **keys: Any) -> Path:
    """Download the app that serves bundles out of the package, and put the bundle into it; return the bundle there."""
    call([str(PROGRAM), "apps", "--download", "--name", "monaibundle", "--output", str(root)], root)
    served = add_to_label_app(BUNDLE, root / "monaibundle", ("light",), model)
    change(served, **keys)
    return served


def change(served: Path, **keys: Any) -> None:
    """Set top-level keys of the served ``train.json``, which each request reads anew."""
    file = served / "configs" / "train.json"
    write_json(file, json.loads(file.read_text()) | keys)


def make_studies(folder: Path, labeled: int) -> list[Path]:
    """Copy the phantom frames, the first ``labeled`` with a label in ``labels/final``; return those without one."""
    source = phantoms.folder()
    (folder / "labels" / "final").mkdir(parents=True)
    lists = json.loads((source / "datalist.json").read_text())
    items = [*lists["training"], *lists["validation"], *lists["test"]]
    for item in items[:labeled]:
        shutil.copy(source / item["label"], folder / "labels" / "final" / Path(item["image"]).name)
    return [Path(shutil.copy(source / item["image"], folder)) for item in items][labeled:]


class Server:
    """A server in a process group of its own, on a free port of this machine only; use it in a ``with`` statement."""

    def __init__(self, app: Path, studies: Path, model: str, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.model, self.log_file = model, folder / "server.log"
        where = ["--app", str(app), "--studies", str(studies), "--host", "127.0.0.1", "--port", str(self.port)]
        conf = ["--conf", "models", model, "--conf", "sam2", "false"]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), "start_server", *where, *conf],
                cwd=folder,
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        try:
            self._wait(seconds=180)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.info()
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
            else:
                return
        raise AssertionError(f"the server did not come up:\n{self.log()}")

    def stop(self) -> None:
        """End the server and what it started; a second call does nothing."""
        for word, seconds in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
            if self.process.poll() is None:
                os.killpg(self.process.pid, word)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue

    def log(self) -> str:
        """Return all that the server has printed."""
        return self.log_file.read_text(errors="replace")

    def info(self) -> dict[str, Any]:
        """Ask what the server offers."""
        return dict(json.loads(self._ask("/info/")[1]))

    def infer(self, image: str) -> bytes:
        """Ask for the mask of an image of the studies, named without its ending."""
        border = uuid.uuid4().hex
        body = f'--{border}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{{}}\r\n--{border}--\r\n'
        path = f"/infer/{self.model}?image={image}&output=image"
        status, answer = self._ask(path, body.encode(), f"multipart/form-data; boundary={border}")
        assert status == 200, f"{status} {answer!r}\n{self.log()}"
        return answer

    def train(self, **params: Any) -> int:
        """Train and wait for the end; return the status of the answer."""
        body = json.dumps({"device": "cpu", "unlabeled_dir": ""} | params).encode()
        return self._ask(f"/train/{self.model}?run_sync=true", body, "application/json")[0]

    def _ask(self, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        request = Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, headers={"Content-Type": kind} if kind else {}
        )
        try:
            with urlopen(request, timeout=600) as answer:
                return int(answer.status), bytes(answer.read())
        except HTTPError as error:
            return error.code, error.read()
