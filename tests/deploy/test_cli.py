"""The command itself: what it says where its output cannot be written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support.processes import FINGERPOST

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    "arguments", [("--version",), ("model", "show", "MODEL"), ("status", "--json", "PROXY")]
)
def test_a_full_disk_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "model.toml").write_text('framework = "python"\nclass = "mine:Model"\n')
    (model / "mine.py").write_text(
        "class Model:\n"
        "    height = width = 1\n"
        "    def __init__(self, folder): pass\n"
        "    def predict(self, batch): return [[1.0]] * len(batch)\n"
    )
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
