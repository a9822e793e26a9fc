"""`--version`, `__version__` and `python -m fingerpost`, in this checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from tests.support.optional import not_none

import fingerpost.client
import fingerpost.proxy
import fingerpost.registry
import fingerpost.worker
from fingerpost.deploy import commit as module
from fingerpost.deploy.commit import commit

ROOT = Path(__file__).parents[2]


def test_each_room_with_an_api_has_the_version() -> None:
    rooms = (fingerpost.client, fingerpost.proxy, fingerpost.registry, fingerpost.worker)
    (version,) = {room.__version__ for room in rooms}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", version)


@pytest.mark.system
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_python_dash_m(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fingerpost", option],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    wanted = r"Usage: python -m fingerpost \[OPTIONS\] COMMAND"
    if option == "--version":
        wanted = rf"^fingerpost {re.escape(fingerpost.client.__version__)}( \(commit [\w-]+\))?\n$"
    assert re.search(wanted, done.stdout)


@pytest.mark.shell
def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deploy" / "fingerpost" / "deploy" / "commit.py"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(module, "__file__", str(file))
    git = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v9"]):
        subprocess.run([*git, *command], check=True)
    clean = commit()
    assert re.fullmatch(r"[0-9a-f]{7,}", not_none(clean))
    (tmp_path / "pyproject.toml").write_text("changed")
    assert commit() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [
        (None, None),
        ({"url": "file:///x", "dir_info": {}}, None),
        (
            {"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}},
            "0123456",
        ),
    ],
)
def test_the_commit_of_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: object, wanted: str | None
) -> None:
    if recorded:
        (tmp_path / "direct_url.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "a" / "b" / "c" / "commit.py"))
    monkeypatch.setattr(module, "distribution", lambda name: PathDistribution(tmp_path))
    assert commit() == wanted
    # What the build wrote comes first.
    built = tmp_path / "a" / "b" / "c" / "commit.txt"
    built.parent.mkdir(parents=True)
    built.write_text("fedcba987654\n")
    assert commit() == "fedcba987654"
