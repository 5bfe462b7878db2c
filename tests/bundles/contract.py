# SPDX-License-Identifier: Apache-2.0
"""The contract that every bundle keeps, as one function: :func:`check_bundle` says all that a folder breaks at once.

What can be told from the files stands here and in ``contract_files.py``; what shows only when MONAI opens the configs
stands in ``contract_workflows.py``, and what wants weights in ``contract_monai.py``. The lint of ``tests/guards``
judges names, references and arguments, and is asked too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple
from tests.bundles.contract_files import FILE_RULES
from tests.bundles.contract_workflows import WORKFLOW_RULES
from tests.guards.test_configs import problems_of

import fewlabel

FILES = (
    *("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"),
    *(f"configs/{n}.json" for n in ("metadata", "train", "inference", "evaluate", "multi_gpu_train", "light")),
)
HEADINGS = (
    "Labels needed",
    "Data tree",
    "Quick start",
    "Your own data",
    "Keys",
    "Stages",
    "Results",
    "Cost",
    "Deviations from the paper",
    "Limits and intended use",
    "Licence",
    "Cite",
)
METADATA = (
    "schema version changelog monai_version pytorch_version numpy_version required_packages_version supported_apps "
    "task description authors copyright data_source intended_use eval_metrics references network_data_format"
).split()
TENSOR = "type format num_channels spatial_shape dtype value_range".split()
OTHER_TASKS = ("detection", "classification", "deepedit", "deepgrow")
VERSION = re.compile(r"\d\.\d\.\d")
UNREADABLE = "configs/"
Rule = Callable[[Path], Iterator[str]]


def check_bundle(bundle: str | Path) -> list[str]:
    """Return one sentence for each thing in a bundle folder that breaks the contract; empty when none does.

    Args:
        bundle: the folder, anywhere; it is read and never written.
    """
    root = Path(bundle).resolve()
    offences = [text for rule in RULES for text in _asked(rule, root)]
    if not any(text.startswith(UNREADABLE) for text in offences):  # else every workflow would only say so again
        offences += [text for rule in WORKFLOW_RULES for text in _asked(rule, root)]
    return offences


def _asked(rule: Rule, root: Path) -> list[str]:
    try:
        return list(rule(root))
    except FileNotFoundError:  # which files() reports
        return []
    except (Exception, SystemExit) as error:  # a rule that cannot even be asked is broken as well
        return [f"{rule.__name__}: {type(error).__name__}: {error}"]


@cache
def config(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


def at(content: Any, path: str) -> Any:
    """Return what stands at ``a::b`` of a config, None where nothing does."""
    for part in path.split("::"):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def files(root: Path) -> Iterator[str]:
    """All files of the house, and no code."""
    yield from (f"the file {name} is missing" for name in FILES if not (root / name).is_file())
    yield from (f"{f.relative_to(root)}: code belongs into fewlabel" for f in sorted(root.rglob("*.py")))
    if (root / "scripts").exists():
        yield "scripts/ must not exist: it works in the bundle's own folder only, and two of them collide"


def lint(root: Path) -> Iterator[str]:
    """Names, references, expressions and arguments in the configs."""
    for file in sorted(root.glob("configs/*.json")):
        yield from (f"{UNREADABLE}{file.name}: {problem}" for problem in problems_of(file))


def names(root: Path) -> Iterator[str]:
    """MONAI Label guesses the task from the name; MONAI's look-up of versions splits it at ``_v``."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", root.name):
        yield f"the name {root.name} has other characters than a-z, 0-9 and _"
    if not re.search(r"._segmentation_.", root.name):
        yield f"the name {root.name} is not <target>_<modality>_segmentation_<method>"
    yield from (f"the name {root.name} holds '{word}'" for word in (*OTHER_TASKS, "_v") if word in root.name)


def metadata(root: Path) -> Iterator[str]:
    """Everything that the schema requires, and versions that MONAI's string comparisons order rightly."""
    meta = config(root / "configs" / "metadata.json")
    yield from (f"metadata.json: '{key}' is missing" for key in METADATA if key not in meta)
    for version in {str(meta.get("version")), *meta.get("changelog", {})}:
        if not VERSION.fullmatch(version):
            yield f"metadata.json: version {version} is not X.Y.Z with one digit each"
    if meta.get("version") not in meta.get("changelog", {}):
        yield f"metadata.json: the changelog does not mention version {meta.get('version')}"
    packages = meta.get("required_packages_version", {})
    for package, version in packages.items():
        if not re.fullmatch(r"\d+(\.\d+)*", str(version)):
            yield f"metadata.json: {package} {version} is not an exact version"
    if packages.get("fewlabel") != fewlabel.__version__:
        yield f"metadata.json: requires fewlabel {packages.get('fewlabel')}, this is {fewlabel.__version__}"
    yield from _tensors(meta.get("network_data_format", {}))


def _tensors(formats: Mapping[str, Any]) -> Iterator[str]:
    """The first input must be ``image`` and the first output ``pred``, each with the facts of a tensor."""
    for side, first in (("inputs", "image"), ("outputs", "pred")):
        if next(iter(formats.get(side, {})), None) != first:
            yield f"metadata.json: the first of network_data_format {side} is not '{first}'"
    for side, entries in formats.items():
        for name, entry in entries.items():
            yield from (f"metadata.json: {side} {name} lacks '{key}'" for key in TENSOR if key not in entry)
            channels = entry.get("channel_def", {})
            if entry.get("format") != "segmentation" and len(channels) != entry.get("num_channels"):
                yield f"metadata.json: {side} {name} names {len(channels)} of {entry.get('num_channels')} channels"


def package(root: Path) -> Iterator[str]:
    """Without fewlabel, ``load`` and the checks of MONAI must say which version to install."""
    for name in ("train", "inference"):
        content = config(root / "configs" / f"{name}.json")
        if f"pip install fewlabel=={fewlabel.__version__}" not in str(content.get("package")):
            yield f"{name}.json: 'package' does not say: pip install fewlabel=={fewlabel.__version__}"
        if at(content, "network_def::_requires_") != "@package":
            yield f'{name}.json: network_def has no "_requires_": "@package"'


def ids(root: Path) -> Iterator[str]:
    """Ids that MONAI Label reads or replaces, and run ids that mean the same in every bundle."""
    train, infer, evaluate = (config(root / "configs" / f"{n}.json") for n in ("train", "inference", "evaluate"))
    wanted = "network network_def train::dataset::data train::trainer::max_epochs train::handlers validate::handlers"
    for content, name, paths in (
        (train, "train", f"{wanted} validate::dataset::data validate::evaluator training"),
        (infer, "inference", "network network_def preprocessing inferer postprocessing dataset evaluator inference"),
    ):
        yield from (f"{name}.json: '{path}' is missing" for path in paths.split() if at(content, path) is None)
    expected = ((train, "run", "%training"), (infer, "run", "%inference"))
    expected += ((evaluate, "run", "%evaluating"), (evaluate, "training", "%evaluating"))
    for content, key, value in expected:
        if content.get(key) != value:
            yield f"'{key}' is {content.get(key)!r}, not '{value}'"
    if not isinstance(evaluate.get("evaluating"), list):
        yield "evaluate.json: the run id 'evaluating' is missing"
    for content in (train, infer):
        if (content.get("initialize") or [None])[0] != "$fewlabel.bundle.start()":
            yield "'initialize' does not begin with $fewlabel.bundle.start()"


def handlers(root: Path) -> Iterator[str]:
    """MONAI and MONAI Label read ``_target_`` of each handler and put their own in front of a list."""
    for file in sorted(root.glob("configs/*.json")):
        for path in ("train::handlers", "validate::handlers", "handlers"):
            found = config(file).get(path, at(config(file), path))
            if found is not None and not (isinstance(found, list) and all(at(h, "_target_") for h in found)):
                yield f"{file.name}: '{path}' is not a list of components"


def lists(root: Path) -> Iterator[str]:
    """Nothing but evaluation may know the test list."""
    for file in sorted({*root.glob("configs/*.json")} - {root / "configs" / "evaluate.json"}):
        if re.search(r"fewlabel\.data\.test_\w+|'test'", file.read_text(encoding="utf-8")):
            yield f"{file.name} names the test list, which only evaluate.json may"


def masks(root: Path) -> Iterator[str]:
    """Inference restores the grid of the input and, in 2-D, writes integers before it drops the channel."""
    steps: list[Mapping[str, Any]] = at(config(root / "configs" / "inference.json"), "postprocessing::transforms") or []
    places = {name: _places(steps, name) for name in ("Invertd", "SaveImaged", "SqueezeDimd", "CastToTyped")}
    if not places["Invertd"]:
        yield "inference.json: no Invertd brings 'pred' back to the grid of the input"
    if not places["SaveImaged"]:
        yield "inference.json: no SaveImaged writes 'pred'"
        return
    save = places["SaveImaged"][-1]
    formats = config(root / "configs" / "metadata.json")["network_data_format"]
    if len(at(formats, "inputs::image")["spatial_shape"]) != 2:
        return
    if not any(place > save for place in places["SqueezeDimd"]):
        yield "inference.json: no SqueezeDimd of 'pred' after SaveImaged: MONAI Label would write a mask of one column"
    if not any(place < save and "int" in str(steps[place].get("dtype")) for place in places["CastToTyped"]):
        yield "inference.json: 'pred' is not cast to integers before SaveImaged: pictures hold no other numbers"


def _places(steps: Sequence[Mapping[str, Any]], name: str) -> list[int]:
    """Where transforms of a kind handle 'pred'."""

    def is_one(step: Mapping[str, Any]) -> bool:
        return str(step.get("_target_")).rpartition(".")[2] == name and "pred" in ensure_tuple(step.get("keys"))

    return [i for i, step in enumerate(steps) if is_one(step)]


def readme(root: Path) -> Iterator[str]:
    """The fixed headings in their order, and every key that a user may change under "Keys"."""
    text = re.sub(r"^```.*?^```", "", (root / "docs" / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    sections = dict(re.findall(r"^## (.+?)\s*$(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    present = [heading for heading in sections if heading in HEADINGS]
    yield from (f"README.md: the heading '{heading}' is missing" for heading in HEADINGS if heading not in present)
    if present != sorted(present, key=HEADINGS.index):
        yield f"README.md: the headings stand in the order {', '.join(present)}"
    yield from (f"README.md: '{heading}' is empty" for heading in present if not sections[heading].strip())
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", sections.get("Keys", "")))))
    yield from (f"README.md: the key '{key}' is not under Keys" for key in user_keys(root) if key not in words)


def user_keys(root: Path) -> list[str]:
    """Return the keys on top of train.json and inference.json, which end where the machinery begins."""
    keys: dict[str, None] = {}
    for name in ("train", "inference"):
        content = config(root / "configs" / f"{name}.json")
        head = list(content)[: list(content).index("package")] if "package" in content else list(content)
        keys |= dict.fromkeys(key for key in head if key not in ("imports", "displayable_configs"))
        keys |= dict.fromkeys(content.get("displayable_configs", {}))
    return list(keys)


def keys_table(root: Path) -> Iterator[str]:
    """The tables under "Keys" name nothing that does not exist, and say what the configs say."""
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Keys\n")[2].partition("\n## ")[0]
    sources = {"default": ("train", "inference"), "value": ("light",)}
    told: dict[str, dict[str, str]] = {column: {} for column in sources}
    for column, rows in re.findall(r"^\| key \| (default|value) \|.*\n\|[-| ]+\n((?:\|.*\n?)+)", section, flags=re.M):
        told[column] |= re.findall(r"^\| `(\w+)` \| (.*?) \|", rows, flags=re.M)
    for column, names in sources.items():
        contents = [config(root / "configs" / f"{name}.json") for name in names]
        for key, cell in told[column].items():
            values = {f"`{json.dumps(content[key], ensure_ascii=False)}`" for content in contents if key in content}
            if not values:
                yield f"README.md: the key '{key}' under Keys is in no config"
            elif values != {cell}:
                yield f"README.md: {column} of '{key}' is {cell}, in the configs {' and '.join(sorted(values))}"
    lacking = config(root / "configs" / "light.json").keys() - told["value"].keys()
    yield from (f"README.md: no table under Keys gives the value of '{key}' in light.json" for key in sorted(lacking))


RULES: tuple[Rule, ...] = (
    *(files, lint, names, metadata, package, ids, handlers, lists, masks, readme, keys_table),
    *FILE_RULES,
)
