"""The room of a disk, and the errors of a full one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.small_disk import small_disk

from fingerpost.basics.disk_room import is_full, room_bytes


@pytest.mark.shell
def test_a_disk_that_fills(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400):
        before = room_bytes(tmp_path / "disk")
        assert before is not None
        assert 300_000 < before <= 400 * 1024
        (tmp_path / "disk" / "model").write_bytes(b"x" * 80_000)
        after = room_bytes(tmp_path / "disk")
        assert after is not None
        assert before - after >= 80_000
        with pytest.raises(OSError) as full, (tmp_path / "disk" / "more").open("wb") as file:
            file.write(b"x" * 1_000_000)
    assert is_full(full.value)


@pytest.mark.parametrize(
    ("flag", "free", "files", "room"),
    [
        (os.ST_RDONLY, 0, 0, None),  # SquashFS
        (os.ST_RDONLY, 0, 9, 0),  # a full disk, mounted read-only in a container
        (os.ST_RDONLY, 3, 9, 12_288),
        (0, 0, 0, 0),
    ],
)
def test_an_image_of_a_disk_is_not_full(
    monkeypatch: pytest.MonkeyPatch, flag: int, free: int, files: int, room: int | None
) -> None:
    state = SimpleNamespace(f_flag=flag, f_bavail=free, f_ffree=files, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: state)
    assert room_bytes(Path("/models")) == room


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("SaveV2: /x; No space left on device"), True),
        (RuntimeError("no space in this tensor"), False),
    ],
    ids=["disk", "quota", "rights", "framework", "other"],
)
def test_what_a_full_disk_says(error: Exception, full: bool) -> None:
    assert is_full(error) is full
