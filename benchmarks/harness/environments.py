"""Peers and tools, installed where they disturb nobody."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["CACHE", "ROOT", "debian_tool", "environment", "installed"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "benchmarks"
_INSTALL_S = 900


def environment(name: str, *packages: str) -> Path:
    """The Python of a virtual environment with these packages, made once and kept in the cache."""
    key = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]
    folder = CACHE / "environments" / f"{name}-{key}"
    python = folder / "bin" / "python"
    if (folder / ".complete").exists():
        return python
    print(f"installing {', '.join(packages)} into an environment of its own...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        check=True,
        timeout=_INSTALL_S,
        stderr=subprocess.DEVNULL,
    )
    (folder / ".complete").touch()
    return python


def installed(python: Path, *packages: str) -> dict[str, str]:
    """The installed versions of these packages."""
    code = "import sys; from importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
    output = subprocess.run(
        [python, "-c", code, *packages], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return dict(zip(packages, output.split(), strict=True))


def debian_tool(name: str, *libraries: str) -> list[str]:
    """The command line of a Debian program: from the PATH, else unpacked into the cache.

    Args:
        name: the program, and its package.
        libraries: packages that it needs and a small machine lacks.
    """
    found = shutil.which(name)
    if found:
        return [found]
    folder = CACHE / "debian" / name
    program = next(folder.glob(f"usr/*bin/{name}"), None)
    if program is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(
                ["apt-get", "-o", "APT::Sandbox::User=root", "download", name, *libraries],
                check=True, cwd=work, timeout=120, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            for package in Path(work).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True, timeout=60)
        program = next(folder.glob(f"usr/*bin/{name}"))
    paths = ":".join(str(path) for path in folder.glob("usr/lib/*-linux-gnu"))
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    return ["env", f"LD_LIBRARY_PATH={paths}:{inherited}", str(program)]
