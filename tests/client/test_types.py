"""What a user's own mypy says of programs that use the client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# PyTorch has types too, which take mypy a quarter of a minute to read.
CONFIG = """
[mypy]
strict = true
[mypy-torch.*]
follow_imports = skip
"""


@pytest.mark.shell
def test_a_strict_program_is_accepted(tmp_path: Path) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(CONFIG)
    program = Path(__file__).with_name("typed_program.py")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={config}", "--cache-dir", tmp_path, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
