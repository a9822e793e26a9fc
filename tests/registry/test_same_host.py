"""Which Unix sockets a client takes for those of a worker on its host."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.registry.same_host import (
    FILE_KEY,
    FRAMES_KEY,
    HOST_KEY,
    MAX_PATH_BYTES,
    UDS_KEY,
    LocalSocket,
    host_boot_id,
    path_problem,
    socket_meta,
)

PATH = "/run/fingerpost/flowers.sock"
PROBLEMS = {
    "too long": ("/fingerpost" + "x" * 100, f"{MAX_PATH_BYTES} is the most .*: use a shorter one"),
    "too many bytes": ("/fingerpost/" + "ü" * 50, "it has 112 bytes"),
    "relative": ("fingerpost.sock", "absolute path"),
    "abstract": ("\0fingerpost", "absolute path"),
    "a line break": ("/run/fingerpost/\n", "printable"),
    "leads elsewhere": ("/run/fingerpost/../docker.sock", r"without '\.\.'"),
    "of another program": ("/run/docker.sock", "must contain 'fingerpost'"),
    "empty": ("", "absolute path"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_path_that_is_not_valid_is_explained(case: str) -> None:
    path, why = PROBLEMS[case]
    with pytest.raises(AssertionError, match=why):
        assert not path_problem(path), path_problem(path)
    assert LocalSocket.of({**socket_meta(PATH, "1-2", "1-3"), UDS_KEY: path}) is None


@pytest.mark.parametrize("path", [PATH, "/srv/fingerpost.sock", "/fingerpost" + "x" * 82])
def test_a_good_path_has_no_problem(path: str) -> None:
    assert path_problem(path) == ""


def test_a_registration_names_the_socket_and_the_host() -> None:
    meta = socket_meta(PATH, "1-2", "1-3")
    assert meta == {
        UDS_KEY: PATH,
        FILE_KEY: "1-2",
        FRAMES_KEY: "1-3",
        HOST_KEY: host_boot_id(),
    }
    assert len(host_boot_id()) == 36
    assert LocalSocket.of(meta) == LocalSocket(PATH, "1-2", "1-3")


@pytest.mark.parametrize("key", [UDS_KEY, HOST_KEY])
def test_without_a_path_or_a_host_there_is_none(key: str) -> None:
    meta = socket_meta(PATH, "1-2", "1-3")
    del meta[key]
    assert LocalSocket.of(meta) is None


def test_that_of_another_host_is_none() -> None:
    other = {**socket_meta(PATH, "1-2", "1-3"), HOST_KEY: "0d15ea5e-0000-4000-8000-000000000000"}
    assert LocalSocket.of(other) is None


def test_a_file_that_is_not_a_socket_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fingerpost.sock"
    file.write_text("")
    with pytest.raises(OSError, match="not a socket"):
        LocalSocket(str(file), "1-2").checked()
