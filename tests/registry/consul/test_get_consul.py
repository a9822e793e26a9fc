"""`deploy/consul/get-consul`: where it looks, and what it says when there is nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.optional import not_none

pytestmark = pytest.mark.shell

SCRIPT = Path(__file__).parents[3] / "deploy" / "consul" / "get-consul"


def run(root: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script in a checkout of its own, with this PATH."""
    copy = root / "deploy" / "consul" / "get-consul"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, copy)
    return subprocess.run(
        ["/bin/sh", copy], env={"PATH": path}, capture_output=True, text=True, check=False
    )


def binary(at: Path) -> Path:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text("#!/bin/sh\n")
    at.chmod(0o755)
    return at


def bare_path(root: Path) -> str:
    """A PATH with what the script itself needs, and neither consul nor apt."""
    folder = root / "bin"
    folder.mkdir()
    for tool in ("cat", "dirname"):
        (folder / tool).symlink_to(not_none(shutil.which(tool)))
    return str(folder)


def test_one_on_path_comes_first(tmp_path):
    path = bare_path(tmp_path)
    binary(tmp_path / ".cache" / "consul" / "consul")
    found = binary(tmp_path / "bin" / "consul")
    answer = run(tmp_path, path)
    assert (answer.returncode, answer.stdout.strip()) == (0, str(found))


def test_then_the_cache(tmp_path):
    cached = binary(tmp_path / ".cache" / "consul" / "consul")
    answer = run(tmp_path, bare_path(tmp_path))
    assert (answer.returncode, answer.stdout.strip()) == (0, str(cached))


def test_else_it_says_how_to_install_it(tmp_path):
    answer = run(tmp_path, bare_path(tmp_path))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "Install Consul" in answer.stderr
    assert "no apt-get here" in answer.stderr


def test_the_scripts_consul_runs(consul_binary):
    answer = subprocess.run([consul_binary, "version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("Consul v")
