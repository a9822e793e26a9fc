"""What the documents name exists: files, folders, make targets, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command_line import commands

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "deploy/*/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
# Paths from the root of the tree, as texts name them; `...` and capitals stand for any name.
_PATH = re.compile(
    r"`((?:registry|client|proxy|worker|deploy|tests|benchmarks|docs|examples)/[\w./-]+)`"
)
_MAKE = re.compile(r"(?:^    |`)make ([a-z][a-z-]+)", re.MULTILINE)
_COMMAND = re.compile(r"(?:^    |`)fingerpost ([a-z]+(?:-[a-z]+)*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    text = (ROOT / page).read_text("utf-8")
    # In a text of one room, `client/wire.py` means client/fingerpost/client/wire.py.
    missing = [
        path
        for path in _PATH.findall(text)
        if "..." not in path
        and not re.search(r"[A-Z]{2}", path)
        and not (ROOT / path).exists()
        and not (ROOT / path.partition("/")[0] / "fingerpost" / path).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_no_conflict_of_a_merge_is_left(page):
    text = (ROOT / page).read_text("utf-8")
    assert not re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([\w%-]+):", makefile, re.MULTILINE))
    named = set(_MAKE.findall((ROOT / page).read_text("utf-8")))
    assert not {each for each in named - targets if not each.startswith("bench-")}


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    named = set(_COMMAND.findall((ROOT / page).read_text("utf-8")))
    assert not named - set(commands().commands)
