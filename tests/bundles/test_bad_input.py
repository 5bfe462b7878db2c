# SPDX-License-Identifier: Apache-2.0
"""Bad input: one sentence that names file or key and the remedy, exit code 1, and nothing overwritten."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.bundles.tiny import BUNDLE, EVALUATE, INFERENCE, SIZE, TRAIN, command, dataset, run, settings, start

from fewlabel.data import splits

BUDGET = 4


def snapshot(folder: Path) -> dict[str, str]:
    """Return the files below a folder with the hash of their content."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(data, folder, label_budget=BUDGET)
    assert (folder / "models" / "resume" / "last.pt").is_file() and (folder / "history.csv").is_file()
    return folder


@pytest.fixture
def earlier(trained: Path, tmp_path: Path) -> Path:
    """The folder of an earlier run, which nothing that is refused may touch."""
    return Path(shutil.copytree(trained, tmp_path / "out"))


@pytest.fixture
def spoiled(data: Path, tmp_path: Path) -> Path:
    """A copy of the data, to be damaged."""
    return Path(shutil.copytree(data, tmp_path / "spoiled"))


def refused(data: Path, out: Path, names: Sequence[str | Path], run_id: str, **keys: Any) -> str:
    """Run, demand one sentence and an untouched folder, and return the sentence."""
    before = snapshot(out)
    with pytest.raises(SystemExit) as caught:
        run(data, out, names, run_id, **{"label_budget": BUDGET, **keys} if "train" in names else keys)
    sentence = caught.value.code
    assert isinstance(sentence, str) and sentence.startswith("fewlabel: "), "prints nothing, or exits with 0"
    assert snapshot(out) == before
    return sentence.removeprefix("fewlabel: ")


def one_line(sentence: str, *parts: str) -> None:
    assert "\n" not in sentence
    for part in parts:
        assert part in sentence


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def larger(file: Path) -> None:
    Image.fromarray(np.ones((SIZE[1] + 8, SIZE[0]), np.uint8)).save(file)


def unmapped(file: Path) -> None:
    Image.fromarray(np.full((SIZE[1], SIZE[0]), 7, np.uint8)).save(file)


FILES: list[tuple[str, Callable[[Path], None], str]] = [
    ("images/f08.png", truncate, "cannot be read (image file is truncated); export it again or take it out"),
    ("images/f13.png", truncate, "cannot be read (image file is truncated); export it again or take it out"),
    ("images/f08.png", Path.unlink, "image does not exist; correct the datalist or dataset_dir"),
    ("labels/f08.png", truncate, "cannot be read"),
    ("labels/f08.png", Path.unlink, "mask does not exist; correct the datalist or dataset_dir"),
    ("labels/f08.png", larger, "mask of 48 x 40, but its image"),
    ("labels/f08.png", unmapped, "mask values 7 are not in label_map; add them there, or correct the mask"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), FILES)
def test_bad_file_stops_training(
    spoiled: Path, earlier: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    """f08 is a validation item, f13 an unlabeled one."""
    spoil(spoiled / name)
    one_line(refused(spoiled, earlier, TRAIN, "training"), str(spoiled / name), words)


@pytest.mark.parametrize(("name", "spoil", "words"), [FILES[0], FILES[5], FILES[6]])
def test_bad_file_stops_evaluating(
    spoiled: Path, earlier: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    file = spoiled / name.replace("f08", "f11")  # of the test list
    spoil(file)
    one_line(refused(spoiled, earlier, EVALUATE, "evaluating"), str(file), words)


def test_bad_file_stops_inference(spoiled: Path, earlier: Path) -> None:
    truncate(spoiled / "images" / "f11.png")
    sentence = refused(spoiled / "images", earlier, INFERENCE, "inference")
    one_line(sentence, str(spoiled / "images" / "f11.png"), "image file is truncated")


def test_all_bad_files_are_named_at_once(spoiled: Path, earlier: Path) -> None:
    for name, spoil, _ in (FILES[1], FILES[5]):
        spoil(spoiled / name)
    head, *sentences = refused(spoiled, earlier, TRAIN, "training").splitlines()
    assert head == "2 problems in the data:"
    assert [FILES[1][2] in "".join(sentences), FILES[5][2] in "".join(sentences), len(sentences)] == [True, True, 2]


KEYS: list[tuple[dict[str, Any], str]] = [
    ({"max_epoch": 5}, "unknown key 'max_epoch': did you mean 'max_epochs'?"),
    ({"train::optimzer": {}}, "unknown key 'train::optimzer': did you mean 'train::optimizer'?"),
    ({"train::dataloader::sed": 5}, "unknown key 'train::dataloader::sed': did you mean 'train::dataloader::seed'?"),
    ({"label_budget": 9}, "label_budget 9 is more than there is: 8 labeled items with a non-empty mask"),
    ({"label_budget": 0}, "label_budget 0 is not a number of labels: give 1 or more, or null for all"),
    ({"label_budget": "four"}, "label_budget 'four' is not a number of labels"),
    ({"label_budget": 1}, "1 labeled item cannot be halved for two networks: raise label_budget to 2 or more"),
    ({"accumulation_steps": 3}, "epoch_length 2 is not a multiple of accumulation_steps 3: change one"),
    ({"encoder": "resnet18dd"}, "Unknown model (resnet18dd); choose another one of timm.list_models()"),
    ({"batch_size": "two"}, "batch_size is 'two': give a whole number from 1 on"),
    ({"method_enabled": "no"}, "method_enabled is 'no': give true or false"),
    ({"select_model": "worst"}, "select_model 'worst' is neither last nor best"),
    ({"member": "both"}, "member 'both' is none of first, second, mean"),
    ({"budget_unit": "clip"}, "budget_unit 'clip' is unknown: give item"),
    ({"hold_out": "OP9"}, "hold_out OP9 is no video of datalist.json; there are: "),
    ({"init_checkpoint": "nowhere.pt"}, "init_checkpoint 'nowhere.pt' does not exist"),
    ({"pretrained": "nowhere.pt"}, "pretrained 'nowhere.pt' does not exist"),
    ({"datalist": "datalst.json"}, "(this folder has datalist.json: --datalist datalist.json): correct --datalist"),
    ({"dataset_dir": "nowhere"}, "nowhere is not a folder: correct --dataset_dir"),
    ({"dataset_dir": str(BUNDLE / "docs")}, "datalist.json does not exist: correct --datalist, or write one"),
    ({"bundle_root": str(BUNDLE.parent)}, f"holds no configs/metadata.json: add --bundle_root '{BUNDLE}'"),
]


@pytest.mark.parametrize(("override", "words"), KEYS)
def test_bad_key_stops_training(data: Path, earlier: Path, override: dict[str, Any], words: str) -> None:
    """The earlier run is not even moved aside, which --resume never would do once training starts."""
    one_line(refused(data, earlier, TRAIN, "training", **{"resume": "never", **override}), words)


@pytest.mark.parametrize("key", ["output_dir", "ckpt_dir"])
def test_folder_that_cannot_be_written(data: Path, earlier: Path, key: str) -> None:
    """A regular file in the way stops even root, whom no permission stops."""
    folder = earlier / "history.csv" / "below"
    sentence = refused(data, earlier, TRAIN, "training", **{key: str(folder)})
    one_line(sentence, f"cannot write to {key} '{folder}'", f"choose another --{key}")


def test_misspelt_key_in_an_overlay(data: Path, earlier: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"epoch_lenght": 5}))
    sentence = refused(data, earlier, (*TRAIN, overlay), "training", resume="never")
    one_line(sentence, "unknown key 'epoch_lenght': did you mean 'epoch_length'?")


def test_checkpoint_of_another_config(data: Path, earlier: Path) -> None:
    sentence = refused(data, earlier, TRAIN, "training", learning_rate=0.5, split_seed=3)
    one_line(sentence, "differs in learning_rate, split_seed, splits: choose another --ckpt_dir", "--resume never")


def test_unknown_run_id(data: Path, earlier: Path) -> None:
    one_line(refused(data, earlier, TRAIN, "trainning"), "unknown run id 'trainning': did you mean 'training'?")
    one_line(refused(data, earlier, TRAIN, "evaluating"), "unknown run id 'evaluating'")


STAGES = [(EVALUATE, "evaluating"), (INFERENCE, "inference")]


@pytest.mark.parametrize(("names", "run_id"), STAGES)
def test_nothing_trained_yet(data: Path, earlier: Path, names: Sequence[str], run_id: str) -> None:
    for file in ("model.pt", "model.safetensors"):
        (earlier / "models" / file).unlink()
    sentence = refused(data, earlier, names, run_id)
    one_line(sentence, f"ckpt_dir '{earlier / 'models'}' holds no model.pt: run training first", "--ckpt_dir")


@pytest.mark.parametrize(("names", "run_id"), STAGES)
def test_model_of_another_profile(data: Path, earlier: Path, names: Sequence[str], run_id: str) -> None:
    sentence = refused(data, earlier, names, run_id, encoder="resnet26d")
    one_line(sentence, f"ckpt_dir '{earlier / 'models' / 'model.pt'}' does not fit the network", "give the overlays")


@pytest.mark.parametrize(("names", "run_id"), STAGES)
def test_damaged_model(data: Path, earlier: Path, names: Sequence[str], run_id: str) -> None:
    truncate(earlier / "models" / "model.pt")
    sentence = refused(data, earlier, names, run_id)
    one_line(sentence, f"ckpt_dir '{earlier / 'models' / 'model.pt'}' cannot be read", "it is damaged")


def test_damaged_state(data: Path, earlier: Path) -> None:
    truncate(earlier / "models" / "resume" / "last.pt")
    sentence = refused(data, earlier, TRAIN, "training", max_epochs=2)
    one_line(sentence, f"'{earlier / 'models' / 'resume' / 'last.pt'}' is damaged", "start over with --resume never")


def test_nothing_to_segment(earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere"):
        sentence = refused(place, earlier, INFERENCE, "inference")
        one_line(sentence, f"nothing to segment at {place}: give an image, a folder, a pattern or a text list")


def test_false_switches_the_method_off(data: Path, spoiled: Path, tmp_path: Path) -> None:
    """No unlabeled image is opened: they are damaged or gone, and training does not notice."""
    spoil_unlabeled(spoiled)
    run(spoiled, tmp_path / "off", label_budget=BUDGET, method_enabled="false")
    run(data, tmp_path / "on", label_budget=BUDGET, method_enabled="true")
    with pytest.raises(SystemExit, match="problems in the data"):
        run(spoiled, tmp_path / "spoiled-on", label_budget=BUDGET, method_enabled="true")
    off, on = (terms(tmp_path / name / "history.csv") for name in ("off", "on"))
    assert off == {"supervised"} and on > off


def spoil_unlabeled(folder: Path) -> None:
    """Damage one half of the unlabeled images, those that the budget left over among them, and remove the other."""
    unlabeled = splits(folder, label_budget=BUDGET).unlabeled
    assert len(unlabeled) == 8 - BUDGET + 2
    for i, item in enumerate(unlabeled):
        truncate(Path(item["image"])) if i % 2 else Path(item["image"]).unlink()


def terms(history: Path) -> set[str]:
    """The terms of the loss that were computed."""
    with history.open() as file:
        columns = next(csv.reader(file))
    return set(columns[columns.index("loss") + 1 : columns.index("lr")]) - {"mean_dice"}


@pytest.fixture(scope="module")
def lines(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Commands as a user types them, started together, because each spends seconds on imports."""
    root = tmp_path_factory.mktemp("lines")
    overlay = root / "overlay.json"
    overlay.write_text(json.dumps({"learning_rte": 0.1}))
    damaged = Path(shutil.copytree(data, root / "damaged"))
    truncate(damaged / "images" / "f13.png")
    unlabeled = Path(shutil.copytree(data, root / "unlabeled"))
    spoil_unlabeled(unlabeled)
    asked: dict[str, tuple[Path, Sequence[str | Path], str, dict[str, Any]]] = {
        "overlay": (data, (*TRAIN, overlay), "training", {}),
        "root": (data, TRAIN, "training", {"bundle_root": str(root)}),
        "nested": (data, TRAIN, "training", {"train::dataloder::seed": 5}),
        "file": (damaged, TRAIN, "training", {"label_budget": BUDGET}),
        "model": (data, EVALUATE, "evaluating", {"encoder": "resnet26d"}),
        "off": (unlabeled, TRAIN, "training", {"label_budget": BUDGET, "method_enabled": "false", "resume": "never"}),
    }
    running = {}
    for name, (folder, names, run_id, keys) in asked.items():
        out = Path(shutil.copytree(trained, root / name))
        line = command(names, run_id, **settings(folder, out, **keys))
        running[name] = (start(line, root / f"{name}-log"), out, snapshot(out))
    yield running
    for process, _, _ in running.values():
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("overlay", "unknown key 'learning_rte': did you mean 'learning_rate'?"),
        ("root", f"holds no configs/metadata.json: add --bundle_root '{BUNDLE}'"),
        ("file", "f13.png: image cannot be read (image file is truncated); export it again"),
        ("model", "model.pt' does not fit the network"),
    ],
)
def test_command_line_ends_with_the_sentence(lines: dict[str, Any], name: str, words: str) -> None:
    process, out, before = lines[name]
    assert process.wait(240) == 1
    errors = (out.parent / f"{name}-log" / "stderr.txt").read_text().splitlines()
    assert errors[-1].startswith("fewlabel: ") and words in errors[-1]
    assert sum(line.startswith("fewlabel: ") for line in errors) == 1
    assert not any("Traceback" in line for line in errors)
    assert snapshot(out) == before


@pytest.mark.slow
def test_misspelt_parent_of_a_nested_key_is_refused_by_monai(lines: dict[str, Any]) -> None:
    """It stops before any of our code runs; the key is named all the same."""
    process, out, before = lines["nested"]
    assert process.wait(240) == 1
    assert "dataloder" in (out.parent / "nested-log" / "stderr.txt").read_text().splitlines()[-1]
    assert snapshot(out) == before


@pytest.mark.slow
def test_the_word_false_on_the_command_line(lines: dict[str, Any]) -> None:
    """python-fire hands it over as a string, which is true."""
    process, out, before = lines["off"]
    assert process.wait(240) == 0, (out.parent / "off-log" / "stderr.txt").read_text()[-3000:]
    assert terms(out / "history.csv") == {"supervised"}
    kept = snapshot(out / "models" / "previous" / "1")
    assert kept == {k.removeprefix("models/"): v for k, v in before.items() if k.startswith("models/")}
