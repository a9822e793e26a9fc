"""A listening Unix socket: its file, and what was there before."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.rights import kept_out

from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.unix_listener import UnixListener
from fingerpost.registry.same_host import file_id

pytestmark = pytest.mark.shell


@pytest.fixture
def path(short_folder: Path) -> Path:
    return short_folder / "fingerpost.sock"


def listening(path: Path) -> UnixListener:
    listener = UnixListener(str(path), "--uds")
    listener.socket.listen()
    listener.publish()
    return listener


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_it_is_at_its_path_only_while_it_listens(path: Path) -> None:
    listener = UnixListener(str(path), "--uds")
    assert not path.exists()
    listener.socket.listen()
    listener.publish()
    assert answers(path)
    assert file_id(str(path)) == listener.file
    assert path.stat().st_mode & 0o777 == 0o666
    assert path.stat().st_uid == os.geteuid()
    listener.close()
    assert os.listdir(path.parent) == []


def test_one_that_never_listened_leaves_nothing(path: Path) -> None:
    UnixListener(str(path), "--uds").close()
    assert os.listdir(path.parent) == []


def test_the_file_of_a_process_that_was_killed_is_replaced(path: Path) -> None:
    """Its socket is there without a process: nothing tells it from a living one but trying."""
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.is_socket()
    assert not answers(path)
    listener = listening(path)
    assert answers(path)
    listener.close()
    assert not path.exists()


def test_a_successor_takes_the_path_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The former one goes on for those that are connected, and leaves the new file alone."""
    former = listening(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        served, _ = former.socket.accept()
        with caplog.at_level(logging.WARNING):
            successor = listening(path)
        assert "is taken over from a process that still listens there" in caplog.text
        served.sendall(b"still here")
        assert client.recv(99) == b"still here"
        served.close()
    former.close()
    assert file_id(str(path)) == successor.file
    assert answers(path)
    successor.close()
    assert os.listdir(path.parent) == []


def test_a_file_that_is_not_a_socket_stays(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"--uds .*not a socket: give another path"):
        UnixListener(str(path), "--uds")
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_is_refused(short_folder: Path) -> None:
    long = short_folder / f"fingerpost-{'x' * 100}.sock"
    with pytest.raises(ConfigurationError, match=r"93 is the most .* use a shorter one"):
        UnixListener(str(long), "--uds")


def test_a_folder_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"make the folder {path.parent}/not-there first"):
        UnixListener(str(path.parent / "not-there" / path.name), "--uds")


def test_a_folder_that_may_not_be_written_is_named(short_folder: Path) -> None:
    folder = short_folder / "closed"
    folder.mkdir()
    with (
        kept_out(folder),
        pytest.raises(ConfigurationError, match="let the worker's user write to the folder"),
    ):
        UnixListener(str(folder / "fingerpost.sock"), "--uds")
    assert os.listdir(folder) == []
