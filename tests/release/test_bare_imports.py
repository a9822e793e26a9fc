"""A program that only wants the client does not load what it never uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

# The packages of the bare install, and those that its packages bring.
_UNUSED = {
    "PIL",
    "consul",
    "prometheus_client",
    "pydantic",
    "requests",
    "rich",
    "typer",
    "urllib3",
    "uvloop",
}


def test_the_client_imports_no_command_line_and_no_image_library() -> None:
    code = "import sys, fingerpost.client; print(*{each.partition('.')[0] for each in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert {"aiohttp", "httptools", "msgspec"} <= loaded
    assert not loaded & _UNUSED
