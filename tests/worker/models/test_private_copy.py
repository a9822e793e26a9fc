"""Copies of models: none is left behind for ever, and none is taken from a process that uses it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.private_copy import PrivateCopy

pytestmark = pytest.mark.shell

_HOLD = """
from fingerpost.worker.models.private_copy import PrivateCopy
copy = PrivateCopy()
(copy.folder / "weights").write_bytes(b"x")
print(copy.folder, flush=True)
input()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_removed_and_what_is_used_stays(temporary: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        env={"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        theirs = Path(process.stdout.readline().strip())
        first = PrivateCopy()
        assert theirs.parent == first.folder.parent
        assert (theirs / "weights").exists(), "its process lives"
        process.kill()
    assert (theirs / "weights").exists(), "nobody removes it at once"
    stranger = temporary / "fingerpost-copy-file"
    stranger.write_text("not a folder")
    second = PrivateCopy()
    assert not theirs.exists()
    assert stranger.exists()
    assert first.folder.exists()
    assert second.folder.stat().st_mode & 0o777 == 0o700
    for copy in (first, second):
        copy.remove()
        assert not copy.folder.exists()


def test_a_file_system_without_locks_keeps_what_is_there(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    first, second = PrivateCopy(), PrivateCopy()
    assert first.folder.exists()
    assert second.folder.exists()
    first.remove()
    second.remove()


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(ConfigurationError, match="No such file.*TMPDIR names a folder"):
        PrivateCopy()
