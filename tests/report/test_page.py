# SPDX-License-Identifier: Apache-2.0
"""The page of a run: its figures are those of the files, nothing is loaded from elsewhere, nothing escapes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.report.folders import SCORES, Page, evaluated, pictured, trained, whole, write_json

from fewlabel.report import write
from fewlabel.report.page import MINUS, duration, is_whole, number
from fewlabel.report.run import mean_sd


def page(folder: Path, baseline: Path | None = None) -> Page:
    return Page(write(folder, baseline).read_text(encoding="utf-8"))


def cases(found: Page) -> dict[str, list[str]]:
    """The rows of the table of cases by their name."""
    (table,) = (table for table in found.tables if table[0][:2] == ["case", "video"])
    return {row[0]: row[1:] for row in table}


def test_figures_are_those_of_the_files(tmp_path: Path) -> None:
    found = page(whole(tmp_path))
    shown = {tag[1]["data-metric"]: float(tag[1]["data-value"]) for tag in found.tags if "data-metric" in tag[1]}
    assert shown == json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    rows = cases(found)
    assert len(rows) == 1 + 6 + 2
    for i, score in enumerate(SCORES):
        assert rows[f"v{i % 2}/f{i}.png"] == [f"v{i % 2}", f"{score:.4f}", f"{1 - score:.4f}", f"{1000 * score:.0f}"]
    mean, sd = mean_sd(SCORES)
    assert rows["mean"][1] == f"{mean:.4f}" and rows["sd"][1] == f"{sd:.4f}"
    assert "Computed on the test list: 6 cases from 2 videos" in found.text


def test_what_was_run_is_said(tmp_path: Path) -> None:
    text = page(whole(tmp_path)).text
    for words in (
        "Tools in <frames>",
        "Method: min max similarity",
        "4 items (budget 4 items, draw 1), from 1 video: v0",
        "split_seed 1, seed 2",
        "3 of 3 epochs, 20 steps each",
        "1 min 2 s",
        "cpu · A processor · Linux · 1 thread",
        "0123456789ab",
        "python -m monai.bundle run training --config_file \"['a.json']\"",
        "threshold 0.5",
        "[96, 128]",
        "Not on this page No baseline",
    ):
        assert words in text, words
    assert "timm" not in text, "packages that are not installed have no version"


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    whole(tmp_path / "method")
    whole(tmp_path / "baseline", method_enabled=False)
    found = page(tmp_path / "method")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", found.html)
    assert {tag for tag, _ in found.tags} & {"link", "iframe", "object", "embed", "form"} == set()
    assert all(source.startswith("data:image/") for source in found.attributes("img", "src"))
    assert not found.attributes("script", "src")
    assert any("default-src 'none'" in policy for policy in found.attributes("meta", "content"))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "two charts share an id"
    assert {target[1:] for target in found.attributes("use", "href")} <= set(ids)


def test_pictures_have_words_and_every_case_its_score(tmp_path: Path) -> None:
    found = page(whole(tmp_path))
    assert len(found.attributes("img", "alt")) == 9 and all(found.attributes("img", "alt"))
    assert "v0/f4.png, slice 4 of 9" in found.text and "mean_dice 0.5000" in found.text
    assert "Worst image label prediction" in found.text
    assert any("rgb(86, 180, 233)" in style for style in found.attributes("i", "style"))


def test_odd_names_are_text_everywhere(tmp_path: Path) -> None:
    names = [
        "</script><script>alert(1)</script>",
        "a&amp;b \"c\" 'd'.png",
        "<img src=x onerror=y>",
        "日本 🦴.png",
        "5",
        "6",
    ]
    pictured(evaluated(trained(tmp_path, dataset_dir="<b>$x$</b>"), names=names, groups=["<i>"] * 6), names[:3])
    found = page(tmp_path)
    assert set(names) <= set(cases(found))
    assert found.html.count("<script>") == 1 and "<img src=x" not in found.html and "<i>" not in found.html


def test_name_that_is_no_text_does_not_stop_the_page(tmp_path: Path) -> None:
    """Linux allows file names of any bytes; Python holds them as lone surrogates, which no encoding writes."""
    evaluated(trained(tmp_path))
    pictured(tmp_path, ("a\udcff.png", "b", "c"))
    assert r"a\udcff.png" in page(tmp_path).text


def test_table_can_be_sorted_by_keyboard_and_click(tmp_path: Path) -> None:
    found = page(whole(tmp_path))
    heads = [attributes for tag, attributes in found.tags if tag == "th" and "aria-sort" in attributes]
    assert [head.get("class") for head in heads] == [None, None, "n", "n", "n"]
    assert found.attributes("button", "type") == ["button"] * len(heads), "only buttons are reached by tab"
    assert 'querySelectorAll("table.sortable")' in found.html and "addEventListener" in found.html
    assert [v for v in found.attributes("td", "data-value") if v == "0.125"], "sorted by the value, not by its text"


def test_comparison_names_the_baseline_its_unit_and_no_p_value(tmp_path: Path) -> None:
    whole(tmp_path / "method")
    evaluated(trained(tmp_path / "plain", method_enabled=False), [score - 0.125 for score in SCORES])
    found = page(tmp_path / "method")
    assert "Baseline: plain supervision in plain , the run beside this one" in found.text
    assert "Mean difference +0.1250, sd 0.0000 over 6 cases; better in 6, worse in 0, equal in 0." in found.text
    assert "The cases come from 2 videos and are no independent samples" in found.text
    assert "no interval and no p-value" in found.text
    (rows,) = (table for table in found.tables if table[0] == ["metric", "this run", "baseline", "difference"])
    assert rows[1] == ["mean_dice", "0.5208", "0.3958", "+0.1250"]
    (rows,) = (table for table in found.tables if table[0] == ["video", "cases", "this run", "baseline", "difference"])
    assert [row[:2] for row in rows[1:]] == [["v0", "3"], ["v1", "3"]]
    assert ["labeled_augmentation", "weak", "paper"] in [row for table in found.tables for row in table]


def test_named_baseline_is_said_to_be_named(tmp_path: Path) -> None:
    whole(tmp_path / "method")
    whole(tmp_path / "elsewhere" / "other", method_enabled=False, seed=9)
    assert (
        "in other , named when this report was written"
        in page(tmp_path / "method", tmp_path / "elsewhere" / "other").text
    )


@pytest.mark.parametrize("make", [lambda f: trained(f, epochs=1), evaluated, lambda f: evaluated(trained(f))])
def test_unfinished_folder_shows_what_there_is(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    found = page(make(tmp_path))
    assert "Not on this page" in found.text
    assert ("Cases" in found.texts) == (tmp_path / "metrics.json").exists()
    assert ("Training" in found.texts) == (tmp_path / "history.csv").exists()


def test_training_list_from_outside(tmp_path: Path) -> None:
    """MONAI Label: no split, and a config that holds the list."""
    pairs = [{"image": f"/store/{i}.png", "label": f"/store/{i}_mask.png"} for i in range(9000)]
    trained(tmp_path, train={"dataset": {"data": pairs}})
    (tmp_path / "split.json").unlink()
    found = page(tmp_path)
    assert "put in from outside" in found.text and "cut here; the rest is in run.json" in found.text
    assert len(found.html) < 1_000_000


def test_page_stays_below_five_megabytes(tmp_path: Path) -> None:
    count = 6000
    trained(tmp_path)
    evaluated(tmp_path, [0.5] * count, [f"{'long/' * 20}{i}.png" for i in range(count)])
    pictured(tmp_path, size=900)
    found = page(tmp_path)
    assert len(found.html.encode()) < 5_000_000
    assert "The first 5000 are shown" in found.text and len(cases(found)) == 1 + 5000 + 2
    assert re.search(r"[123] more in the folder examples", found.text)
    assert len(found.attributes("img", "src")) % 3 == 0


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    evaluated(trained(tmp_path), [0.5, float("nan"), float("inf")], metrics={"mean_dice": float("nan")})
    rows = cases(page(tmp_path))
    assert [row[1] for row in rows.values()] == ["mean_dice", "0.5000", "\N{EN DASH}", "∞", "∞", "\N{EN DASH}"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.25, f"{MINUS}0.2500"), (1234567.8, "1\u202f234\u202f568"), (3e-6, f"3.0e{MINUS}06"), (0.0, "0.0000")],
)
def test_numbers_as_text(value: float, text: str) -> None:
    assert number(value).text == text and number(value).value == value


def test_counts_and_durations() -> None:
    assert is_whole([0.0, 5.0, float("nan")]) and not is_whole([0.0, 1.0]) and not is_whole([2.5, 3.0])
    assert (duration(59.6), duration(3599), duration(3600)) == ("1 min 0 s", "59 min 59 s", "1 h 0 min")


def test_pictures_are_the_files_themselves(tmp_path: Path) -> None:
    import base64
    import io

    found = page(whole(tmp_path))
    first = base64.b64decode(found.attributes("img", "src")[0].partition(",")[2])
    assert first == (tmp_path / "examples" / "worst_1_image.jpg").read_bytes()
    assert np.asarray(Image.open(io.BytesIO(first))).shape == (32, 32, 3)
    write_json(tmp_path / "examples" / "index.json", {"metric": "mean_dice", "examples": []})
    assert page(tmp_path).attributes("img", "src") == []
