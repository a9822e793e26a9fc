"""The command itself: what it says where its output cannot be written, or Ctrl-C comes early."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.processes import FINGERPOST
from tests.support.python_models import write_python_model

pytestmark = pytest.mark.system


def write_model(folder: Path) -> Path:
    code = """
class Model:
    height = width = 1

    def predict(self, batch):
        return [[1.0]] * len(batch)
"""
    return write_python_model(folder / "m", code, "mine:Model")


@pytest.mark.parametrize(
    "arguments", [("--version",), ("model", "show", "MODEL"), ("status", "--json", "PROXY")]
)
def test_a_full_disk_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    model = write_model(tmp_path)
    given = [
        {"MODEL": str(model), "PROXY": "--registry=static://127.0.0.1:9?model=m"}.get(each, each)
        for each in arguments
    ]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*FINGERPOST, *given], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.stderr.splitlines() == [
        "fingerpost: the output cannot be written: No space left on device; "
        "make room, and run this again"
    ]
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["--version", "status", "classify --model MODEL x.png"])
def test_results_are_not_lost_in_silence(tmp_path: Path, command: str) -> None:
    given = command.replace("MODEL", str(write_model(tmp_path)))
    program = ["sh", "-c", f"exec {shlex.join(FINGERPOST)} {given} >&-"]
    done = subprocess.run(program, stderr=subprocess.PIPE, text=True, timeout=60)
    assert "standard output is closed" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--hold-for-start soon", "'soon' is not a valid time"),
        ("--hold-for-start 11m", "hold_for_start_s is 660: give 600 s at most"),
        ("--expect flowers,../x", "'../x' is not a valid service name"),
    ],
    ids=["time", "too long", "name"],
)
def test_a_wrong_hold_is_named(given: str, message: str) -> None:
    proxy = ["proxy", "--registry", "http://127.0.0.1:1", "--port", "0", *given.split()]
    done = subprocess.run([*FINGERPOST, *proxy], capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("│", " ").split())


# Presses Ctrl-C when a module of that name is imported; Python starts with `sitecustomize`.
_INTERRUPT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ("--version",)),
        ("fingerpost.deploy.commands.demo", ("worker", "--model", "MODEL")),
        ("fingerpost.basics.printable", ("status",)),
        ("fingerpost.worker.worker", ("worker", "--model", "MODEL")),
        ("fingerpost.proxy.server", ("proxy",)),
        ("numpy", ("worker", "--model", "MODEL")),
    ],
)
def test_ctrl_c_during_the_imports_shows_no_traceback(
    tmp_path: Path, module: str, arguments: tuple[str, ...]
) -> None:
    model = write_model(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPT)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fingerpost",
            *(model if each == "MODEL" else each for each in arguments),
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPT_AT": module},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")
    # Of a shell's view both are 130.
    assert done.returncode in (130, -signal.SIGINT)
