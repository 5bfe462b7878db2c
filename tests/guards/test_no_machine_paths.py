# SPDX-License-Identifier: Apache-2.0
"""Nothing in the repository belongs to one machine or one person: no absolute paths, addresses or heavy files.

Allowed: URLs, what every Unix has (``UNIX``), a path that is glued to a folder (``output_dir + '/data'``), and
addresses of robots and of the example domains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.guards._tree import refuse, shown, text_of, tracked_files

LIMIT = 500 * 1024  # the same as check-added-large-files --maxkb=500
WEIGHTS, HEAVIEST = re.compile(r"bundles/\w+/weights/\w+/model\.(pt|safetensors)"), 8 * 2**20  # together, of a bundle
UNIX = ("/usr/bin/env", "/dev/null", "/proc/cpuinfo", "/dev/stdin", "/dev/stdout", "/dev/stderr")
URL = re.compile(r"\b(?:https?|ftp|git|ssh|s3)(?:\+\w+)?://[^\s\"'<>)\]]+")
_ROOTS = "home|root|work|workspace|tmp|Users|mnt|media|scratch|Volumes|private|nfs|gpfs|lustre|kaggle"
_DEEP = "data|datasets?|opt|srv|var|usr|etc|dev|proc|content|storage|shared|project|projects"
POSIX = re.compile(rf"(?<![\w.}})\]$>*<~-])/(?:(?:{_ROOTS})\b|(?:{_DEEP})/(?=\w))[^\s\"'<>,;)\]]*")
WINDOWS = re.compile(
    r"(?<![A-Za-z])[A-Za-z]:(?:\\{1,2}(?:Users|Documents|Temp|home|data|work)|[\\/]{1,2}(?:Windows|Program))\b"
    r"|(?<![A-Za-z])[C-Z]:\\\\\w"
)
ADDRESS = re.compile(r"[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b")
NOBODY = re.compile(r"noreply|^git@|@(?:[\w-]+\.)*example\.(?:com|org|net)$", re.IGNORECASE)


def machine_paths(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, path) for each absolute path of a machine."""
    for number, line in enumerate(text.splitlines(), 1):
        line = URL.sub(" ", line)
        for found in [*POSIX.finditer(line), *WINDOWS.finditer(line)]:
            glued = line[: found.start()].rstrip("'\"").rstrip().endswith("+")
            if not glued and not found.group().startswith(UNIX):
                yield number, found.group()


def addresses(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, address) for each e-mail address that may be a person's."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in ADDRESS.findall(line):
            if not NOBODY.search(found):
                yield number, found


def test_no_absolute_path_of_a_machine() -> None:
    found = [
        f"{shown(path)}:{number}: {name}"
        for path in tracked_files()
        for number, name in machine_paths(text_of(path) or "")
    ]
    refuse(found, "write paths relative to the repository, to bundle_root or to an argument")


def test_no_address_of_a_person() -> None:
    found = [
        f"{shown(path)}:{number}: {name}" for path in tracked_files() for number, name in addresses(text_of(path) or "")
    ]
    refuse(found, "no e-mail addresses but noreply and example.org")


def test_no_heavy_file() -> None:
    heavy = {shown(path): path.stat().st_size for path in tracked_files() if path.stat().st_size > LIMIT}
    weights = {name: size for name, size in heavy.items() if WEIGHTS.fullmatch(name)}
    found = [f"{name}: {size // 1024} kB" for name, size in heavy.items() if name not in weights]
    refuse(found, "files of more than 500 kB belong into large_files.yml with url and sha256")
    for bundle in {name.split("/")[1] for name in weights}:
        assert sum(size for name, size in weights.items() if name.split("/")[1] == bundle) <= HEAVIEST


def test_something_is_tracked() -> None:
    assert {"pyproject.toml", "README.md"} <= {shown(path) for path in tracked_files()}


# Assembled, so that this file does not hold what it forbids.
PATHS = [
    *(
        "/" + name
        for name in ("home/ada/data", "root/x", "work/repo", "tmp/a", "Users/Ada/x", "mnt/disk", "opt/conda/bin")
    ),
    *("/" + name for name in ("data/frames", "var/log/x", "usr/local/lib", "tmp", "dev/shm/x", "root")),
    *("C:" + name for name in ("\\Users\\Ada", "\\\\Users", "/" + "Users", "\\\\data")),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "around", ['"dataset_dir": "{}",', "see {} for it", "name,{},3", "file://{}", "`{}`", "--x={}"]
)
def test_planted_path_is_found(path: str, around: str) -> None:
    assert [number for number, _ in machine_paths("fine\n" + around.format(path))] == [2]


@pytest.mark.parametrize(
    "text",
    [
        "#!/usr/bin/env bash",
        "command 2>/dev/null",
        "https://zenodo.org/home/tmp/x and http://a.b/Users/c",
        "$@bundle_root + '/data/frames'",
        'f"{folder}/tmp/x"',
        "bundles/x/data/y, common/home/x, ../shared/data, ./tmp/x, ~/data/frames",
        "</data/> and/or work/data; train/root",
        r'print(f"Z:\n")',
    ],
)
def test_what_every_machine_has_is_allowed(text: str) -> None:
    assert list(machine_paths(text)) == []


def test_planted_address_is_found() -> None:
    planted = "by ada.l" + "@" + "lab.uni-x.de"
    assert [name for _, name in addresses(planted)] == ["ada.l" + "@" + "lab.uni-x.de"]
    robots = ["noreply@lab.org", "1+a@users.noreply.github.com", "ada@example.org", "git@github.com", "$@a.b + @c.d"]
    assert list(addresses("\n".join(robots))) == []
