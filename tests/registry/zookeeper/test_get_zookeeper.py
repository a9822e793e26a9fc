"""`deploy/zookeeper/get-zookeeper`: where it looks, and what it says when there is nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.optional import not_none

pytestmark = pytest.mark.shell

SCRIPT = Path(__file__).parents[3] / "deploy" / "zookeeper" / "get-zookeeper"
TOOLS = ("cat", "chmod", "dirname", "head", "ls", "mkdir", "mktemp", "mv", "sed", "rm", "sh")


def run(root: Path, *, java: bool, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy in a checkout of its own, on a PATH with little more than what it needs."""
    copy = root / "deploy" / "zookeeper" / "get-zookeeper"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, copy)
    folder = root / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(not_none(shutil.which(tool)))
    if java:
        (folder / "java").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (folder / "java").chmod(0o755)
    return subprocess.run(
        ["/bin/sh", copy],
        env={"PATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installation_is_named_by_the_environment(tmp_path):
    home = tmp_path / "it's here"
    (home / "lib").mkdir(parents=True)
    (home / "lib" / "zookeeper-3.9.3.jar").touch()
    answer = run(tmp_path, java=True, ZOOKEEPER_HOME=str(home))
    assert answer.returncode == 0, answer.stderr
    program = answer.stdout.strip()
    said = subprocess.run([program, "zoo.cfg"], capture_output=True, text=True, check=True).stdout
    assert f"{home}/lib/*\n" in said
    assert said.endswith("QuorumPeerMain\nzoo.cfg\n")


def test_an_installation_that_is_none(tmp_path):
    answer = run(tmp_path, java=True, ZOOKEEPER_HOME=str(tmp_path))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"ZOOKEEPER_HOME={tmp_path} has no lib/zookeeper-VERSION.jar" in answer.stderr


def test_without_java_and_apt_it_says_what_to_install(tmp_path):
    answer = run(tmp_path, java=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "no java here, and no apt-get to fetch" in answer.stderr
    assert "apt install zookeeper" in answer.stderr
