# SPDX-License-Identifier: Apache-2.0
"""What documents say of keys, files and versions is what the repository holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs._pages import PAGES, blocks, files_of_page, section, table
from tests.guards._tree import ROOT, refuse, shown

import fewlabel

BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/train.json"))
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def head(file: Path) -> dict[str, Any]:
    """Return the keys on top of a config, which end at ``package``."""
    config = json.loads(file.read_text(encoding="utf-8"))
    return {key: config[key] for key in list(config)[: list(config).index("package")] if key != "imports"}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_keys_and_defaults_are_those_of_the_configs(bundle: Path) -> None:
    keys = section((bundle / "docs" / "README.md").read_text(encoding="utf-8"), "Keys")
    train, inference = head(bundle / "configs" / "train.json"), head(bundle / "configs" / "inference.json")
    assert train | inference == inference | train, "train.json and inference.json have different defaults"
    assert table(keys, "key", "default") == train | inference
    assert table(keys, "key", "value") == json.loads((bundle / "configs" / "light.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    refuse([link for link in links if not (page.parent / link).exists()], f"{shown(page)} links to nothing")


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_json_can_be_read(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "json"):
        json.loads(block.text)


def test_every_method_in_the_table_is_here_or_planned() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in section(text, "Pick a method by the labels you own").splitlines() if line.startswith("| ")]
    cells = [row.strip("|").split("|")[-1].strip() for row in rows[1:]]
    here = {name for cell in cells for name in re.findall(r"^\[(\w+)\]\(bundles/\1/docs/README.md\)$", cell)}
    assert here == {bundle.name for bundle in BUNDLES}
    assert len(cells) == len(here) + cells.count("planned")


def test_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == fewlabel.__version__
    assert f"\n## {fewlabel.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


PAGE = """<details><summary><code>a/b.json</code> (1 line)</summary>

```json
{"a": 1}
```

`c.md`

````markdown
```bash
inside
```
````

See `d.py`:

<!-- run -->
```bash
ls
```
"""


def test_pages_are_read_as_they_are_written() -> None:
    assert files_of_page(PAGE) == {"a/b.json": '{"a": 1}\n', "c.md": "```bash\ninside\n```\n"}
    (block,) = blocks(PAGE, "bash")
    assert (block.line, block.text, block.mark) == (19, "ls\n", "run")
    assert [b.mark for b in blocks(PAGE.replace("<!-- run -->", "<!-- not run: -->"), "bash")] == [None]
    assert table("| key | default | x |\n|---|---|---|\n| `a` | `[1]` | y |\n\n| b | 2 |", "key", "default") == {
        "a": [1]
    }
