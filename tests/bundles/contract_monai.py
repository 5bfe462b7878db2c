# SPDX-License-Identifier: Apache-2.0
"""MONAI's own checks, without a network: metadata, shapes, runs, ``load`` and the exports, of a bundle with weights.

The rules are of the kind of ``contract.py``, but want a bundle as somebody downloads it, with ``models/model.pt`` for
the default profile. :func:`small_copy` makes one whose default is the light profile, and the rule :func:`runs`, which
writes into the folder, trains it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import monai.bundle
import onnxruntime
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import _get_fake_spatial_shape
from monai.data import load_net_with_metadata
from torch import Tensor, nn

from fewlabel.data.randomness import one_thread

SCHEMAS = Path(__file__).parent / "schemas"
SHORT = {"max_epochs": 1, "pretraining_epochs": 1, "point_epochs": 8, "epoch_length": 2, "batch_size": 2}
SHORT |= {"learning_rate": 0.003}  # so that a few steps find points
SIZES = {2: [64, 64], 3: [32, 32, 32]}  # by dimensions of space
RUNS = (
    ("training", "train", ("train",), "models/model.pt"),
    ("evaluating", "train", ("train", "evaluate"), "output/metrics.json"),
    ("inference", "inference", ("inference",), "output/predictions/*"),
)
TOLERANCE = {"rtol": 1e-4, "atol": 5e-5}  # norms of volumes sum 10^5 voxels, each runtime in its own order


def small_copy(bundle: Path, folder: Path) -> Path:
    """Copy a bundle without its results, the light profile taking the place of the default; return the copy."""
    target = folder / bundle.name
    shutil.copytree(bundle, target, ignore=shutil.ignore_patterns("models", "output"))
    light = json.loads((bundle / "configs" / "light.json").read_text(encoding="utf-8"))
    light = {key: value for key, value in light.items() if key not in ("output_dir", "ckpt_dir")}
    for name in ("train", "inference"):
        file = target / "configs" / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({key: light.get(key, value) for key, value in content.items()}), encoding="utf-8")
    return target


def schema(bundle: Path) -> Iterator[str]:
    """``verify_metadata`` finds what the schema asks for, which is published where everybody can read it."""
    file = bundle / "configs" / "metadata.json"
    url = str(json.loads(file.read_text(encoding="utf-8")).get("schema"))
    known = SCHEMAS / url.rpartition("/")[2]
    if not url.startswith("https://") or not known.is_file():
        yield f"metadata.json: the schema {url} is none that can be checked against"
        return
    try:
        monai.bundle.verify_metadata(meta_file=str(file), filepath=str(known))
    except ValueError as error:
        yield f"metadata.json: {_first_line(error)}"


def network(bundle: Path) -> Iterator[str]:
    """``verify_net_in_out``: the networks of both configs take and give what the metadata says."""
    for name in ("train", "inference"):
        try:
            with tempfile.TemporaryDirectory() as elsewhere, chdir(elsewhere):
                monai.bundle.verify_net_in_out(
                    net_id="network_def",
                    meta_file=str(bundle / "configs" / "metadata.json"),
                    config_file=str(bundle / "configs" / f"{name}.json"),
                    device="cpu",
                    n=2,
                )
        except (Exception, SystemExit) as error:
            yield f"verify_net_in_out of {name}.json: {_first_line(error)}"


def runs(bundle: Path) -> Iterator[str]:
    """A short training, an evaluation and an inference of the folder run, as the zoo's tests do, and leave results."""
    for run_id, kind, names, result in RUNS:
        try:
            with one_thread():
                _run(bundle, run_id, kind, names)
        except (Exception, SystemExit) as error:
            yield f"{run_id}: {_first_line(error)}"
            return
        if not any(bundle.glob(result)):
            yield f"{run_id} leaves no {result}"


def _run(bundle: Path, run_id: str, kind: str, names: tuple[str, ...]) -> None:
    known = json.loads((bundle / "configs" / f"{names[0]}.json").read_text(encoding="utf-8"))
    short = SHORT | {"spatial_size": SIZES[len(known.get("spatial_size", [0, 0]))]}
    with tempfile.TemporaryDirectory() as elsewhere, chdir(elsewhere):
        workflow = ConfigWorkflow(
            config_file=[str(bundle / "configs" / f"{name}.json") for name in names],
            workflow_type=kind,
            run_id=run_id,
            logging_file=False,
            **{"bundle_root": str(bundle), "device": "cpu", **{k: v for k, v in short.items() if k in known}},
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def loading(bundle: Path) -> Iterator[str]:
    """``monai.bundle.load`` gives the network with its weights, in any folder and beside another bundle."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "bundles" / f"{bundle.name}_again"
        shutil.copytree(bundle, other, ignore=shutil.ignore_patterns("output", "resume"))
        shifted = {k: v + 1 if v.is_floating_point() else v for k, v in _weights(bundle).items()}
        torch.save(shifted, other / "models" / "model.pt")
        (cwd := Path(folder) / "cwd").mkdir()
        with chdir(cwd):
            yield from _loading(bundle, other)
        yield from (f"load writes {file.name} into the working folder" for file in sorted(cwd.rglob("*")))


def _loading(bundle: Path, other: Path) -> Iterator[str]:
    for kind in ("train", "inference"):
        try:
            loaded = [(place, _load(place, kind)) for place in (bundle, other)]
        except (Exception, SystemExit) as error:
            yield f"load of {kind}.json: {_first_line(error)}"
            continue
        for place, found in loaded:
            expected = _weights(place)
            wrong = [k for k, v in found.state_dict().items() if k not in expected or not torch.equal(v, expected[k])]
            if wrong:
                yield f"load of {kind}.json leaves {len(wrong)} tensors as they were: {', '.join(wrong[:3])}"


def misfit(bundle: Path) -> Iterator[str]:
    """Weights of another profile are refused: MONAI's ``load`` would leave the network random and say nothing."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / bundle.name
        shutil.copytree(bundle, other, ignore=shutil.ignore_patterns("output", "resume"))
        torch.save({f"other.{k}": v for k, v in _weights(bundle).items()}, other / "models" / "model.pt")
        for kind in ("train", "inference"):
            try:
                _load(other, kind)
            except SystemExit as error:
                if "does not fit the network" not in str(error):
                    yield f"load of {kind}.json with weights of another network says: {_first_line(error)}"
            else:
                yield f"load of {kind}.json takes weights of another network and leaves its own random"


def exports(bundle: Path) -> Iterator[str]:
    """TorchScript and ONNX, written by MONAI's commands, compute what the network computes, at several sizes."""
    eager = _network(bundle)
    cases = []
    for image, shape in _inputs(bundle):
        with torch.no_grad():
            cases.append((image, eager(image)))
        if tuple(cases[-1][1].shape) != shape:
            yield f"the network gives {tuple(cases[-1][1].shape)} for {tuple(image.shape)}; by metadata.json {shape}"
    with tempfile.TemporaryDirectory() as folder, chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of what MONAI calls
        for kind, export in (("ckpt_export", _torchscript), ("onnx_export", _onnx)):
            try:
                yield from (f"{kind}: {problem}" for problem in export(bundle, Path(folder), cases))
            except (Exception, SystemExit) as error:
                yield f"{kind}: {_first_line(error)}"


Cases = list[tuple[Tensor, Tensor]]


def _torchscript(bundle: Path, folder: Path, cases: Cases) -> Iterator[str]:
    file, config = folder / "model.ts", bundle / "configs" / "inference.json"
    monai.bundle.ckpt_export(filepath=str(file), config_file=str(config), bundle_root=str(bundle))
    net, metadata, extra = load_net_with_metadata(str(file), more_extra_files=("inference.json",))
    read = {"metadata": metadata, "inference": json.loads(extra["inference.json"])}
    for name, content in read.items():
        if content != json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8")):
            yield f"the file holds another {name}.json"
    net.eval()
    with torch.no_grad():
        yield from _compared((image, net(image), expected) for image, expected in cases)


def _onnx(bundle: Path, folder: Path, cases: Cases) -> Iterator[str]:
    file, example = folder / "model.onnx", cases[0][0]
    free = {0: "batch"} | {axis + 2: f"size{axis}" for axis, size in enumerate(_shape(bundle)) if isinstance(size, str)}
    monai.bundle.onnx_export(
        net_id="network_def",
        filepath=str(file),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        input_shape=list(example.shape),
        converter_kwargs={
            "input_names": ["image"],
            "output_names": ["pred"],
            "dynamic_axes": {"image": free, "pred": free},
        },
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    answers = ((i, torch.from_numpy(session.run(["pred"], {"image": i.numpy()})[0]), e) for i, e in cases)
    yield from _compared(answers)


def _compared(answers: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Iterator[str]:
    for image, found, expected in answers:
        if found.shape != expected.shape:
            yield f"gives {tuple(found.shape)} for {tuple(image.shape)}, the network {tuple(expected.shape)}"
        elif not torch.allclose(found, expected, **TOLERANCE):
            yield f"is {float((found - expected).abs().max()):.2g} away from the network for {tuple(image.shape)}"


def _format(bundle: Path, side: str, name: str) -> dict[str, Any]:
    meta = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return dict(meta["network_data_format"][side][name])


def _shape(bundle: Path) -> list[str | int]:
    return list(_format(bundle, "inputs", "image")["spatial_shape"])


def _inputs(bundle: Path) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Random images of sizes that the metadata allows, each axis its own, with the shape of the answer."""
    generator = torch.Generator().manual_seed(0)
    image, pred = _format(bundle, "inputs", "image"), _format(bundle, "outputs", "pred")
    for batch, sizes in ((2, (4, 2, 2)), (1, (2, 3, 2)), (3, (3, 5, 3))):

        def shape(entry: dict[str, Any], batch: int = batch, sizes: tuple[int, ...] = sizes) -> tuple[int, ...]:
            axes = zip(entry["spatial_shape"], sizes, strict=False)
            return batch, entry["num_channels"], *(_get_fake_spatial_shape([a], n=n, any=16 * n)[0] for a, n in axes)

        yield torch.randn(shape(image), generator=generator), shape(pred)


def _load(bundle: Path, kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a config is code
        found = monai.bundle.load(bundle.name, bundle_dir=bundle.parent, workflow_type=kind, device="cpu")
    assert isinstance(found, nn.Module)
    return found


def _network(bundle: Path) -> nn.Module:
    """The network of inference.json with the weights of the bundle, by PyTorch alone."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network: nn.Module = parser.get_parsed_content("network_def")
    network.load_state_dict(_weights(bundle))
    return network.eval()


def _weights(bundle: Path) -> dict[str, Tensor]:
    return dict(torch.load(bundle / "models" / "model.pt", weights_only=True))


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


RELEASE_RULES: tuple[Callable[[Path], Iterator[str]], ...] = (schema, network, loading, misfit, exports)
