# SPDX-License-Identifier: Apache-2.0
"""The page of one run: what the template shows, worked out of the run folder."""

from __future__ import annotations

import base64
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewlabel.report import figures
from fewlabel.report.comparison import Comparison
from fewlabel.report.page import counted, duration, number, render, table
from fewlabel.report.run import Run, mean_sd

MAX_BYTES = 4_900_000
_TOP_KEYS = (
    "label_budget budget_unit split_seed hold_out spatial_size batch_size max_epochs epoch_length learning_rate seed "
    "method_enabled device"
).split()
PANELS = {
    "image": "image",
    "map": "activation map",
    "mask": "pseudo mask",
    "points": "points and Voronoi cells",
    "instances": "final instances",
    "superpixels": "regions",
    "sampling": "regions and voxels drawn",
    "features_before": "features, untrained",
    "features_after": "features, pre-trained",
    "result": "result",
}
NOTES = {
    "sampling": "What the contrast of regions draws from the patch in the white frame (without one, from all that is "
    "shown): regions (tinted), and voxels of each, yellow in the first view and white in the second, which hides the "
    "first; of a volume, eight draws and the voxels near the slice.",
    "features_before": "Features: the three principal components of what the head of the network reads, as red, green "
    "and blue. Colors compare between images, not between the two networks.",
}
_MAX_ROWS, _MAX_CONFIG, _MAX_NAMES = 5000, 200_000, 500
_MAX_COLUMNS = 5


def run_page(run: Run, comparison: Comparison | None = None, notes: Sequence[str] = ()) -> str:
    """Return the page of a run, below five megabytes: pictures that do not fit are left to their folder.

    Args:
        run: the run.
        comparison: the run beside its baseline, if there is one.
        notes: further sentences about what is missing.
    """
    context = {
        "run": run,
        "missing": [*run.missing(), *notes],
        **_head(run),
        **_what_was_run(run),
        "comparison": _comparison(comparison) if comparison else None,
        **_cases(run, comparison),
        **_curves(run, comparison),
        "stages": None,
        "examples": [],
        "legend": _legend(run.examples),
        "left_out": 0,
    }
    room = MAX_BYTES - len(render("run.html.jinja", context).encode("utf-8", "replace"))
    stages, room = _stages(run, room)
    groups, left_out = _examples(run, room)
    return render("run.html.jinja", context | {"stages": stages, "examples": groups, "left_out": left_out})


def _head(run: Run) -> dict[str, Any]:
    found = run.metrics.get("metrics", {})
    names = [run.key_metric, *(name for name in found if name != run.key_metric)] if found else []
    shown = []
    for name in names:
        _, sd = mean_sd(run.scores() if name == run.key_metric else run.cases.columns.get(name, ()))
        spread = "" if sd != sd else number(sd).text
        shown.append({"name": name, "value": found[name], "text": number(found[name]).text, "sd": spread})
    started = f"started {_moment(run)} \N{MIDDLE DOT} " if run.record.get("started") else ""
    return {"figures": shown, "started": started, "basis": _basis(run) if found else ""}


def _moment(run: Run) -> str:
    return str(run.record["started"]).replace("T", " ").replace("+00:00", " UTC")


def _basis(run: Run) -> str:
    """On what the figures were computed."""
    many = counted(int(run.metrics.get("cases", 0)), "case")
    of_groups = f" from {counted(len(set(run.cases.groups)), _unit(run))}" if run.cases.groups else ""
    return f"Computed on the {run.metrics.get('list')} list: {many}{of_groups}."


def _unit(run: Run) -> str:
    return str(run.metrics.get("group_key") or "group")


def _what_was_run(run: Run) -> dict[str, Any]:
    record, keys = run.record, run.keys
    top = {name: keys[name] for name in _TOP_KEYS if name in keys}
    config = json.dumps(record["config"], indent=1, ensure_ascii=False, default=str) if "config" in record else ""
    if len(config) > _MAX_CONFIG:
        config = config[:_MAX_CONFIG] + "\n... (cut here; the rest is in run.json)"
    labeled = [str(item.get("image")) for item in run.split.get("labeled", [])]
    hidden = len(labeled) - _MAX_NAMES
    return {
        "about": [(name, value) for name, value in _about(run) if value],
        "command": _command(record.get("command", [])),
        "user_keys": _shown(top),
        "other_keys": _shown({name: value for name, value in keys.items() if name not in top}),
        "labeled": labeled[:_MAX_NAMES] + ([f"... and {hidden} more, see split.json"] if hidden > 0 else []),
        "config": config,
    }


def _shown(keys: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(n, v if isinstance(v, str) and v else json.dumps(v, ensure_ascii=False)) for n, v in keys.items()]


def _about(run: Run) -> list[tuple[str, str]]:
    record, keys, machine = run.record, run.keys, run.record.get("machine", {})
    done, wanted = run.epochs
    steps = f"{done} of {wanted} epochs, {keys['epoch_length']} steps each" if "epoch_length" in keys else ""
    versions = [f"{name} {value}" for name, value in record.get("versions", {}).items() if value]
    versions += [f"python {record['python']}"] if "python" in record else []
    hardware = [machine.get("name"), machine.get("platform")]
    threads = [counted(machine["threads"], "thread")] if "threads" in machine else []
    return [
        ("method", ("baseline, " if run.is_baseline else "") + run.method if record else ""),
        ("data list", " in ".join(str(v) for v in (run.split.get("source"), keys.get("dataset_dir")) if v)),
        ("labels used", _labels_used(run)),
        ("unlabeled", _unlabeled(run)),
        ("validation", counted(len(run.split.get("validation", [])), "item") if run.split else ""),
        ("evaluated on", f"{run.metrics['list']} list" if "list" in run.metrics else ""),
        ("evaluated with", ", ".join(f"{n} {v}" for n, v in run.metrics.get("settings", {}).items())),
        ("seeds", ", ".join(f"{name} {keys[name]}" for name in ("split_seed", "seed") if name in keys)),
        ("steps", steps),
        ("training time", duration(run.seconds) + ", validation included" if run.history else ""),
        ("device", " \N{MIDDLE DOT} ".join(str(v) for v in (keys.get("device"), *hardware, *threads) if v)),
        ("versions", ", ".join(versions)),
        ("commit", str(record.get("commit") or "")[:12]),
    ]


def _labels_used(run: Run) -> str:
    if not run.split:
        return ""
    split, group_key = run.split, run.keys.get("group_key")
    budget = split.get("label_budget")
    said = "all labels of the list" if budget is None else f"budget {budget} {split.get('budget_unit', '')}s"
    groups = Counter(str(item[group_key]) for item in split["labeled"] if group_key in item)
    origin = f", from {counted(len(groups), str(group_key))}: {', '.join(sorted(groups)[:12])}" if groups else ""
    origin += ", ..." if len(groups) > 12 else ""
    held = f"; held out: {', '.join(map(str, split['hold_out']))}" if split.get("hold_out") else ""
    return f"{counted(len(split['labeled']), 'item')} ({said}, draw {split.get('split_seed')}){origin}{held}"


def _unlabeled(run: Run) -> str:
    if not run.split:
        return ""
    return counted(len(run.split["unlabeled"]), "item") + (", not used by the baseline" if run.is_baseline else "")


def _command(words: Sequence[str]) -> str:
    if not words:
        return ""
    parts = Path(words[0]).parts
    program = "python -m monai.bundle" if parts[-3:] == ("monai", "bundle", "__main__.py") else shlex.quote(words[0])
    return " ".join([program, *map(_quoted, words[1:])])


def _quoted(word: str) -> str:
    """As a shell reads it; lists of files, which hold single quotes, in double ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _comparison(found: Comparison) -> dict[str, Any]:
    mean, sd = found.mean_sd
    better, worse, equal = found.better_worse_equal
    automatic = "the run beside this one with the same data list, labels and evaluated cases"
    others = ", ".join(folder.name for folder in found.others)
    sentence = (
        f"Mean difference {number(mean, sign=True).text}, sd {number(sd).text} over "
        f"{counted(len(found.cases), 'case')}; better in {better}, worse in {worse}, equal in {equal}."
    )
    alone = f" {counted(found.alone, 'case')} that only one of the two scored are left out." if found.alone else ""
    rows = [{n: number(v, sign=n == "difference").text for n, v in _three(row).items()} for row in found.figures]
    units = [{n: number(v, sign=n == "difference").text for n, v in _three(row).items()} for row in found.units]
    return {
        "folder": found.baseline.folder.name,
        "how": (automatic if found.automatic else "named when this report was written")
        + (f"; as good a choice: {others}" if others else ""),
        "mean": mean,
        "mean_text": number(mean, sign=True).text,
        "sd_text": number(sd).text,
        "figures": [{"name": row.name, **texts} for row, texts in zip(found.figures, rows, strict=True)],
        "units": [{"name": u.name, "cases": u.cases, **texts} for u, texts in zip(found.units, units, strict=True)],
        "chart": Markup(figures.strips({"": found.differences}, "paired", _direction(found.run), zero=True)),
        "sentence": sentence + alone,
        "caution": _caution(found),
        "differing": [(n, *(v for _, v in _shown({"a": a, "b": b}))) for n, (a, b) in (found.differing or {}).items()],
    }


def _direction(run: Run) -> str:
    side = "right" if run.higher_is_better else "left"
    return f"{run.key_metric}, this run minus baseline; {side} of zero this run is better"


def _three(row: Any) -> dict[str, float]:
    return {"run": row.run, "baseline": row.baseline, "difference": row.difference}


def _caution(found: Comparison) -> str:
    """What the difference can and cannot say."""
    unit = _unit(found.run)
    origin = f"The cases come from {counted(len(found.units), unit)}" if found.units else "Cases may belong together"
    return (
        f"{origin} and are no independent samples, and both trainings are one draw of labels and one seed: therefore "
        "no interval and no p-value. Whether a difference holds, several draws and folds say: tools/label_budget.py."
    )


def _cases(run: Run, comparison: Comparison | None) -> dict[str, Any]:
    if not run.cases.names:
        return {"table": None, "table_lead": "", "strip": "", "unit": _unit(run)}
    count = min(len(run.cases.names), _MAX_ROWS)
    words = {"case": run.cases.names[:count]} | ({_unit(run): run.cases.groups[:count]} if run.cases.groups else {})
    numbers = {name: values[:count] for name, values in run.cases.columns.items()}
    rows = {"this run": run.scores()} | ({"baseline": comparison.baseline.scores()} if comparison else {})
    lead = f"{counted(len(run.cases.names), 'case')} of the {run.metrics.get('list')} list. Click a head to sort."
    if count < len(run.cases.names):
        lead += f" The first {count} are shown; all are in metrics_per_case.csv."
    return {
        "table": table(f"Figures of {count} cases", words, numbers),
        "table_lead": lead,
        "strip": Markup(figures.strips(rows, "scores", run.key_metric)),
        "unit": _unit(run),
    }


def _curves(run: Run, comparison: Comparison | None) -> dict[str, Any]:
    training, metrics = run.curves()
    baseline = comparison.baseline.curves()[1] if comparison else {}
    return {
        "loss_chart": Markup(figures.curves(training, "terms")),
        "metric_chart": Markup(figures.curves(metrics, "metrics", baseline)),
    }


def _legend(index: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and colors of the outlines."""
    names, colors = index.get("class_names"), index.get("colors", [])
    pairs = [("each object", colors[0])] if names is None and colors else []
    pairs += [(name, colors[k % len(colors)]) for k, name in enumerate((names or [])[1:])]
    return [(str(name), f"rgb({', '.join(map(str, color))})") for name, color in pairs]


def _stages(run: Run, room: int) -> tuple[dict[str, Any] | None, int]:
    """Images after every stage, as long as there is room; and the room that is left."""
    cases = []
    for entry in run.stages.get("examples", []):
        case, size = _pictures(run.folder / "examples" / "stages", entry)
        if size <= room:
            room -= size
            cases.append(case)
    if not cases:
        return None, room
    panels = [panel for panel in PANELS if any(panel in case["pictures"] for case in cases)]
    colors = _legend(run.stages) if run.stages.get("class_names") else []
    return {
        "cases": cases,
        "panels": {panel: PANELS[panel] for panel in panels},
        "columns": len(panels) if len(panels) <= _MAX_COLUMNS else (len(panels) + 1) // 2,
        "notes": [NOTES[panel] for panel in panels if panel in NOTES],
        "legend": colors,
    }, room


def _pictures(folder: Path, entry: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Name and pictures of a case, and the bytes that they take."""
    pictures = {panel: _data(folder / file) for panel, file in entry["files"].items()}
    where = "slice {} of {}".format(entry["slice"][0] + 1, entry["slice"][1]) if entry.get("slice") else ""
    return {"name": entry["case"], "slice": where, "pictures": pictures}, sum(map(len, pictures.values())) + 1000


def _examples(run: Run, room: int) -> tuple[list[dict[str, Any]], int]:
    """Cases by group, with pictures as long as there is room; and how many were left out."""
    groups: dict[str, list[dict[str, Any]]] = {}
    left_out = 0
    for entry in run.examples.get("examples", []):
        case, size = _pictures(run.folder / "examples", entry)
        if size > room:
            left_out += 1
            continue
        room -= size
        case |= {"score": number(entry["score"]).text}
        groups.setdefault(entry["group"], []).append(case)
    return [{"name": name.capitalize(), "cases": cases} for name, cases in groups.items()], left_out


def _data(file: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()
