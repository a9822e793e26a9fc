"""Which commit of the repository the running code comes from."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["commit"]


def commit() -> str | None:
    """The short hash of the commit, or None where it is not known.

    In a checkout it comes from git, with `-dirty` where files differ from it. A wheel and an sdist
    hold it in `commit.txt`, where they were built from a checkout. Otherwise it comes from what pip
    recorded of an installation from a repository's URL (PEP 610, `direct_url.json`).
    """
    here = Path(__file__).resolve()
    root = here.parents[3]
    if (root / ".git").exists() and (root / "pyproject.toml").exists():
        return _from_git(root)
    return _from_build(here.with_name("commit.txt")) or _from_installer()


def _from_git(root: Path) -> str | None:
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        "--abbrev=12",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - no input of others
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _from_build(file: Path) -> str | None:
    try:
        return file.read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _from_installer() -> str | None:
    try:
        text = distribution("fingerpost").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    found = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return found[:7] if found else None
