"""What a user's own type checkers say of programs that use the client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.shell

PROGRAM = Path(__file__).with_name("typed_program.py")

# PyTorch has types too, which take mypy a quarter of a minute to read.
MYPY = """
[mypy]
strict = true
[mypy-torch.*]
follow_imports = skip
"""


def mypy(program: Path, folder: Path) -> str:
    """The errors of mypy in its strict mode; what it found in libraries is kept for the next."""
    config = folder / "mypy.ini"
    config.write_text(MYPY)
    cache = folder.parent / "mypy"
    return run("mypy", f"--config-file={config}", "--cache-dir", cache, program, cwd=folder)


def pyright(program: Path, folder: Path) -> str:
    """The errors of pyright, and, as in mypy, a `type: ignore` where there is nothing wrong."""
    config = {
        "include": [str(program)],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    return run("basedpyright", "-p", folder, "--pythonpath", sys.executable, "--level", "error")


def run(module: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout + done.stderr if done.returncode else ""


CHECKERS = pytest.mark.parametrize("checker", [mypy, pyright])


@CHECKERS
def test_a_strict_program_is_accepted(checker, tmp_path: Path) -> None:
    assert checker(PROGRAM, tmp_path) == ""


@CHECKERS
def test_a_number_is_not_an_image(checker, tmp_path: Path) -> None:
    """As long as the checker knows what `ImageSource` is."""
    program = tmp_path / "program.py"
    program.write_text(
        "from fingerpost.client import SyncClient\n"
        'SyncClient().classify("a.jpg", "flowers")\n'
        'SyncClient().classify(3.14, "flowers")\n'
        'SyncClient().stream([3.14], "flowers")\n'
    )
    lines = [line for line in checker(program, tmp_path).splitlines() if "error: " in line]
    places = [line.partition("program.py:")[2].split(":")[0] for line in lines]
    assert places == ["3", "4"], lines
