"""Ansible, run on this machine against machines with systemd, by SSH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from tests.machines.machine import ROOT, Machine, run

__all__ = [
    "ANSIBLE",
    "COLLECTION",
    "Playbooks",
    "Release",
    "build_earlier",
    "build_wheel",
    "build_wheelhouse",
    "make_keys",
    "recap",
]

ANSIBLE = ROOT / "deploy/ansible"
COLLECTION = ANSIBLE / "ansible_collections/fingerpost/cluster"
TOOLS = ROOT / ".venv-ansible/bin"
SLOWEST = int(os.environ.get("SLOWEST", "5"))  # tasks of a run that are printed
_VERSION = "registry/fingerpost/registry/version.py"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Release:
    """A wheel, and what `fingerpost --version` says after it has been installed."""

    wheel: Path
    version: str


def build_wheel(folder: Path) -> Release:
    """The wheel of this checkout."""
    return _built(folder, ROOT)


def build_earlier(folder: Path, commit: str) -> Release:
    """The wheel of an earlier commit.

    Where the clone does not go back to it, it is that of this tree under another version: what an
    upgrade does to a machine is tried all the same, but not that workers of two releases agree.
    """
    tree = folder / "tree"
    tree.mkdir()
    known = ("git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}")
    if subprocess.run([str(each) for each in known], capture_output=True).returncode == 0:
        archive = folder / "tree.tar"
        run("git", "-C", ROOT, "archive", "--output", archive, commit)
        run("tar", "-xf", archive, "-C", tree)
        return _built(folder, tree, commit)
    print(
        f"\nThis clone has no commit {commit}: what is upgraded from is this tree under another "
        "version. `git fetch --unshallow` gets the true one."
    )
    names = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    file = tree / _VERSION
    text, changed = re.subn(r'__version__ = "[^"]+"', '__version__ = "0.1.9"', file.read_text())
    assert changed == 1
    file.write_text(text)
    return _built(folder, tree, commit)


def _built(folder: Path, tree: Path, commit: str | None = None) -> Release:
    commit = commit or run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
    build = (*_PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel")
    run("env", f"FINGERPOST_COMMIT={commit}", *build, tree)
    (wheel,) = (folder / "wheel").glob("*.whl")
    return Release(wheel, f"{wheel.name.split('-')[1]} (commit {commit[:12]})")


def build_wheelhouse(folder: Path, wheel: Path) -> Path:
    """An archive of what the wheel needs on Debian 12, for machines that reach no package index.

    With uv, which the role then installs with.
    """
    run(
        *_PIP, "download", "--dest", folder / "house", "--python-version", "3.11",
        "--only-binary", ":all:", f"{wheel}[python,security,zmq]", "uv",
    )  # fmt: skip
    (folder / "house" / wheel.name).unlink()
    archive = folder / "wheels.tar"
    run("tar", "-cf", archive, "-C", folder / "house", ".")
    return archive


def make_keys(folder: Path, layer: Path) -> Path:
    """A key that all machines with `layer` let in as root."""
    key = folder / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    home = layer / "root/.ssh"
    home.mkdir(parents=True)
    home.chmod(0o700)
    shutil.copy(key.with_suffix(".pub"), home / "authorized_keys")
    return key


class Playbooks:
    """Runs the playbooks of deploy/ansible.

    Args:
        folder: for the inventory and what Ansible keeps.
        key: the key that the machines let in.
    """

    def __init__(self, folder: Path, key: Path) -> None:
        self._folder, self._key = folder, key
        self.inventory = folder / "inventory.yml"

    def write_inventory(
        self,
        groups: dict[str, list[Machine]],
        hostvars: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        """Write it: machines by group, variables of single machines, and those of all."""
        common |= {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no "
            f"-o UserKnownHostsFile=/dev/null -o ControlPath={self._folder}/%C",
        }  # fmt: skip
        children = {
            group: {
                "hosts": {
                    each.name: {"ansible_host": each.address, **(hostvars or {}).get(each.name, {})}
                    for each in machines
                }
            }
            for group, machines in groups.items()
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": common, "children": children}}))

    def command(self, playbook: str, *arguments: object) -> list[str]:
        """The command line of a playbook."""
        ansible = (TOOLS / "ansible-playbook", "-i", self.inventory)
        return [str(each) for each in (*ansible, playbook, *arguments)]

    def run(self, playbook: str, *arguments: object, fails: bool = False) -> str:
        """Run a playbook, and return what it prints.

        Raises:
            AssertionError: it failed, or did not although `fails` is set.
        """
        lines, tasks = [], [(time.monotonic(), "start")]
        with subprocess.Popen(
            self.command(playbook, *arguments), cwd=ANSIBLE, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if found := re.match(r"(?:TASK|RUNNING HANDLER|PLAY) \[?(.*?)\]? \*+$", line):
                    tasks.append((time.monotonic(), found[1]))
        tasks.append((time.monotonic(), ""))
        output = "".join(lines)
        assert (process.returncode != 0) == fails, output
        took: dict[str, float] = defaultdict(float)
        for (start, name), (end, _) in pairwise(tasks):
            took[name] += end - start
        slowest = sorted(took.items(), key=lambda item: -item[1])[:SLOWEST]
        print(
            f"{playbook}: {tasks[-1][0] - tasks[0][0]:.0f} s for {len(tasks)} tasks, of which "
            + ", ".join(f"{name}: {each:.1f}" for name, each in slowest)
        )
        return output

    def environment(self) -> dict[str, str]:
        """The environment of Ansible's programs."""
        return os.environ | {
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ANSIBLE),
            "ANSIBLE_HOME": str(self._folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }


def recap(output: str) -> dict[str, dict[str, int]]:
    """The last lines of a run: for each machine how many tasks were `ok`, `changed`, `failed`."""
    lines = output.partition("PLAY RECAP")[2].splitlines()[1:]
    return {
        line.split()[0]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}
        for line in lines
        if line.strip()
    }
