# SPDX-License-Identifier: Apache-2.0
"""Every bundle keeps the contract, and a bundle that breaks it anywhere is told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import contract, contract_files, contract_workflows
from tests.bundles.contract_workflows import construction, properties, readers
from tests.guards._tree import ROOT, refuse

BUNDLES = sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/train.json"))


def test_there_are_bundles() -> None:
    assert BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_bundle_keeps_the_contract(bundle: Path) -> None:
    refuse(contract.check_bundle(bundle), bundle.name)


@pytest.fixture
def one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the configs of inference only, which is quick."""
    monkeypatch.setattr(contract_workflows, "STACKS", {"inference": ("inference", ("inference", "light"))})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bundle that tests may break."""
    target = tmp_path / BUNDLES[0].name
    shutil.copytree(BUNDLES[0], target, ignore=shutil.ignore_patterns("models", "output"))
    return target


def edit(bundle: Path, name: str, path: str, value: Any) -> None:
    """Set ``a::b`` of a config; None removes it."""
    file = bundle / "configs" / f"{name}.json"
    content = json.loads(file.read_text())
    *parents, leaf = path.split("::")
    inside: Any = content
    for parent in parents:
        inside = inside[int(parent)] if isinstance(inside, list) else inside.setdefault(parent, {})
    inside.pop(leaf, None)
    if value is not None:
        inside[leaf] = value
    file.write_text(json.dumps(content))


def without(steps: list[dict[str, Any]], target: str) -> list[dict[str, Any]]:
    return [step for step in steps if not step["_target_"].endswith(target)]


STEPS = contract.config(BUNDLES[0] / "configs" / "inference.json")["postprocessing"]["transforms"]
FORMATS = contract.config(BUNDLES[0] / "configs" / "metadata.json")["network_data_format"]


@pytest.mark.parametrize(
    ("rule", "name", "path", "value", "message"),
    [
        (contract.metadata, "metadata", "required_packages_version", None, "'required_packages_version' is missing"),
        (contract.metadata, "metadata", "version", "0.10.0", "version 0.10.0 is not X.Y.Z with one digit each"),
        (contract.metadata, "metadata", "changelog", {"0.0.9": ""}, "the changelog does not mention version 0.1.0"),
        (
            contract.metadata,
            "metadata",
            "required_packages_version::timm",
            ">=1.0",
            "timm >=1.0 is not an exact version",
        ),
        (contract.metadata, "metadata", "required_packages_version::fewlabel", "9.9.9", "requires fewlabel 9.9.9"),
        (contract.metadata, "metadata", "network_data_format::outputs", {"mask": {}}, "of network_data_format outputs"),
        (
            contract.metadata,
            "metadata",
            "network_data_format::inputs::image::dtype",
            None,
            "inputs image lacks 'dtype'",
        ),
        (contract.metadata, "metadata", "network_data_format::outputs::pred::channel_def", {}, "pred names 0 of 1"),
        (contract.package, "inference", "package", "fewlabel", "inference.json: 'package' does not say: pip install"),
        (contract.package, "train", "network_def::_requires_", None, "train.json: network_def has no"),
        (
            contract.ids,
            "train",
            "train::trainer::max_epochs",
            None,
            "train.json: 'train::trainer::max_epochs' is missing",
        ),
        (contract.ids, "train", "network", None, "train.json: 'network' is missing"),
        (contract.ids, "inference", "postprocessing", None, "inference.json: 'postprocessing' is missing"),
        (contract.ids, "evaluate", "training", None, "'training' is None, not '%evaluating'"),
        (contract.ids, "evaluate", "evaluating", None, "the run id 'evaluating' is missing"),
        (contract.ids, "train", "initialize", ["$1"], "'initialize' does not begin with"),
        (
            contract.handlers,
            "train",
            "train::handlers",
            "$[@validate::evaluator]",
            "train.json: 'train::handlers' is not",
        ),
        (contract.handlers, "light", "validate::handlers", ["@x"], "light.json: 'validate::handlers' is not a list"),
        (contract.lists, "train", "validate::dataset::data", "$fewlabel.data.test_items()", "names the test list"),
        (contract.masks, "inference", "postprocessing::transforms", without(STEPS, "SqueezeDimd"), "no SqueezeDimd"),
        (
            contract.masks,
            "inference",
            "postprocessing::transforms",
            without(STEPS, "CastToTyped"),
            "not cast to integers",
        ),
        (contract.masks, "inference", "postprocessing::transforms", without(STEPS, "Invertd"), "no Invertd brings"),
        (contract.masks, "inference", "postprocessing::transforms", [STEPS[-1], *STEPS[:-1]], "no SqueezeDimd"),
        (contract.masks, "inference", "postprocessing::transforms", without(STEPS, "SaveImaged"), "no SaveImaged"),
        (contract.lint, "train", "network", "$@netwrk_def.to(@device)", "'@netwrk_def' refers to nothing"),
    ],
)
def test_broken_config_is_found(
    copy: Path, rule: contract.Rule, name: str, path: str, value: Any, message: str
) -> None:
    edit(copy, name, path, value)
    found = list(rule(copy))
    assert any(message in text for text in found), found


def test_channels_of_a_volume_stay(copy: Path) -> None:
    """The rule of 2-D bundles is not asked of 3-D ones."""
    edit(copy, "metadata", "network_data_format::inputs::image::spatial_shape", ["16*n"] * 3)
    edit(copy, "inference", "postprocessing::transforms", without(STEPS, "SqueezeDimd"))
    assert list(contract.masks(copy)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Frames_segmentation_mms", "other characters"),
        ("frames_mms", "is not <target>_<modality>_segmentation_<method>"),
        ("retina_vessel_segmentation_mms", "holds '_v'"),
        ("polyp_detection_segmentation_mms", "holds 'detection'"),
    ],
)
def test_bad_name_is_found(tmp_path: Path, name: str, message: str) -> None:
    assert any(message in text for text in contract.names(tmp_path / name))


@pytest.mark.parametrize("name", contract.FILES)
def test_missing_file_is_found(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert list(contract.files(copy)) == [f"the file {name} is missing"]


def test_code_is_found(copy: Path) -> None:
    (copy / "scripts").mkdir()
    (copy / "scripts" / "net.py").touch()
    found = " ".join(contract.files(copy))
    assert "net.py: code belongs" in found and "scripts/ must not exist" in found


WEIGHTS = {"path": "models/model.pt", "url": "https://example.org/x", "hash_val": "0" * 64, "hash_type": "sha256"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({key: ""}, f"lacks '{key}'") for key in WEIGHTS),
        ({"hash_type": "md5"}, "of type md5, not sha256"),
        ({"hash_val": "abc"}, "the checksum abc, which is no sha256"),
        ({"url": "http://example.org/x"}, "not by https"),
        ({"path": "../model.pt"}, "lies outside of the bundle"),
        ({"path": "models/other.pt"}, "models/other.pt stands there twice"),
    ],
)
def test_weights_without_checksum_or_place_are_found(copy: Path, change: dict[str, str], message: str) -> None:
    file = copy / "large_files.yml"
    file.write_text(json.dumps({"large_files": [WEIGHTS]}))
    assert list(contract_files.weights(copy)) == []
    file.write_text(json.dumps({"large_files": [WEIGHTS | change, WEIGHTS | {"path": "models/other.pt"}]}))
    assert any(message in text for text in contract_files.weights(copy))
    file.write_text("large_files:\n")
    assert "lists nothing" in next(contract_files.weights(copy))


@pytest.mark.parametrize("word", ["/" + "home/ada/frames", "ada" + "@" + "hospital.org"])
def test_path_and_address_of_a_person_are_found(copy: Path, word: str) -> None:
    edit(copy, "train", "dataset_dir", word)
    (found,) = contract_files.places(copy)
    assert found.startswith("configs/train.json:1 names ") and word in found


def test_heavy_file_is_found(copy: Path) -> None:
    (copy / "models").mkdir()
    for place in (copy / "docs" / "atlas.bin", copy / "models" / "model.pt"):
        with place.open("wb") as stream:
            stream.truncate(contract_files.HEAVY + 2**20)
    assert list(contract_files.sizes(copy)) == ["docs/atlas.bin has 26 MB: list it in large_files.yml"]


def test_missing_terms_are_found(copy: Path) -> None:
    (copy / "LICENSE").write_text("Mine.")
    (copy / "docs" / "data_license.txt").write_text("\n")
    file = copy / "docs" / "README.md"
    file.write_text(file.read_text().replace("`docs/data_license.txt`", "elsewhere"))
    found = list(contract_files.licences(copy))
    assert len(found) == 3 and found[2] == "README.md: 'Licence' does not name data_license.txt"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| `seed` | `0` |", "| `seed` | `1` |", "README.md: default of 'seed' is `1`, in the configs `0`"),
        ("| `seed` | `0` |", "| `sede` | `0` |", "README.md: the key 'sede' under Keys is in no config"),
        (
            "| `max_epochs` | `10` |\n",
            "",
            "README.md: no table under Keys gives the value of 'max_epochs' in light.json",
        ),
        (
            "| key | value |",
            "| name | value |",
            "README.md: no table under Keys gives the value of 'encoder' in light.json",
        ),
    ],
)
def test_table_of_keys_that_lags_behind_is_found(copy: Path, old: str, new: str, message: str) -> None:
    file = copy / "docs" / "README.md"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert message in list(contract.keys_table(copy))


def test_readme_that_lags_behind_is_found(copy: Path) -> None:
    edit(copy, "train", "package", None)
    file = copy / "docs" / "README.md"
    text = file.read_text().replace("## Cost", "## Costs").replace("`temperature`", "temperature")
    file.write_text(text.replace("## Labels needed", "## Stages", 1).replace("## Stages", "## Labels needed"))
    found = list(contract.readme(copy))
    assert "README.md: the heading 'Cost' is missing" in found
    assert "README.md: the key 'temperature' is not under Keys" in found


def test_readme_in_another_order_is_found(copy: Path) -> None:
    names = contract.HEADINGS
    body = "".join(
        f"## {name}\n\n`{'` `'.join(contract.user_keys(copy))}`\n\n" for name in (names[1], names[0], *names[2:])
    )
    (copy / "docs" / "README.md").write_text("# Title\n\n" + body)
    (offence,) = contract.readme(copy)
    assert "in the order Data tree, Labels needed" in offence


@pytest.mark.usefixtures("one_stack")
def test_property_of_another_name_is_found(copy: Path) -> None:
    edit(copy, "inference", "evaluator::postprocessing", "@restoring")
    edit(copy, "inference", "restoring", {"_target_": "Compose", "transforms": "$@postprocessing.transforms"})
    assert "inference: MONAI's property postprocessing is missing or misnamed" in list(properties(copy))


@pytest.mark.usefixtures("one_stack")
def test_property_that_is_missing_is_found(copy: Path) -> None:
    edit(copy, "inference", "inferer", None)
    edit(copy, "inference", "evaluator::inferer", None)
    assert any("'inferer' not in the config" in text for text in properties(copy))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("$len(open(@train::dataset::data[0]['image'], 'rb').read())", "No such file or directory"),
        ("$open(@output_dir + '/notes.txt', 'w').close() or 1", "writes notes.txt"),
        ("$open('notes.txt', 'w').close() or 1", "writes notes.txt"),
        ("$len(os.listdir('configs'))", "No such file or directory"),
    ],
)
def test_construction_that_touches_files_is_found(copy: Path, expression: str, message: str) -> None:
    edit(copy, "train", "train::trainer::seed", expression)
    assert any("building train::trainer" in text and message in text for text in construction(copy))


def test_data_set_that_no_other_process_can_read_is_found(copy: Path) -> None:
    edit(copy, "train", "train::dataset::transform", ["$lambda item: item"])
    assert any("train::dataset::transform cannot be pickled" in text for text in readers(copy))


def test_all_offences_are_told_at_once(copy: Path) -> None:
    (copy / "LICENSE").unlink()
    edit(copy, "metadata", "task", None)
    edit(copy, "evaluate", "run", ["$1"])
    edit(copy, "train", "network", "$@netwrk_def.to(@device)")
    found = "\n".join(contract.check_bundle(copy))
    for message in ("LICENSE is missing", "'task' is missing", "not '%evaluating'", "'@netwrk_def' refers to nothing"):
        assert message in found
