"""Unix sockets, certificates and secrets, as real files."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.certificates import Authority
from tests.support.join_command import run_command

from fingerpost.deploy.doctor.credential_checks import check_credentials
from fingerpost.deploy.doctor.finding import Finding, Level
from fingerpost.deploy.doctor.socket_checks import check_socket
from fingerpost.registry import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

pytestmark = pytest.mark.shell


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that every user may pass."""
    with tempfile.TemporaryDirectory(prefix="fingerpost") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def look(path: object, **more: bool | int) -> Finding:
    """The only finding for a path."""
    (found,) = check_socket(str(path), **more)  # type: ignore[arg-type]
    assert found.check == "uds"
    return found


def test_a_socket_that_can_be_made_leaves_nothing(folder: Path) -> None:
    found = look(folder / "a.sock", processes=2)
    assert found.level is Level.OK
    assert f"{folder}/a.sock can be made, with {len(str(folder)) + 9} bytes" in found.message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "says", "remedy"),
    [
        ("missing/a.sock", "No such file or directory", "make the folder {folder}/missing first"),
        ("file/a.sock", "Not a directory", "make the folder {folder}/file first"),
        ("file", "there is a file that is not a socket", "give another path"),
        ("x" * 93, "93 is the most for a Unix socket", "use a shorter one"),
        ("../a.sock", "is not a valid path", "without '..'"),
    ],
)
def test_what_is_wrong_with_a_path(folder: Path, path: str, says: str, remedy: str) -> None:
    (folder / "file").write_text("")
    found = look(folder / path)
    assert found.level is Level.ERROR
    assert says in found.message
    assert remedy.format(folder=folder) in found.remedy
    assert [each.name for each in folder.iterdir()] == ["file"]


def test_a_path_that_no_client_uses() -> None:
    found = look("/run/flowers.sock")
    assert "clients connect to no other socket" in f"{found.message} {found.remedy}"


def test_the_folder_of_a_unit_comes_with_it() -> None:
    found = look("/run/fingerpost-worker-nobody/http.sock")
    assert (found.level, found.remedy) == (Level.NOTE, "")


def test_a_socket_that_is_taken_and_one_that_others_do_not_reach(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(folder / "a.sock"))
        taken, made = check_socket(str(folder / "a.sock"))
        assert (taken.level, made.level) == (Level.WARNING, Level.OK)
        assert look(folder / "a.sock", running=True).level is Level.OK
    folder.chmod(0o700)
    rights, made = check_socket(str(folder / "b.sock"))
    assert (rights.check, rights.level, made.level) == ("uds rights", Level.NOTE, Level.OK)
    assert f"{folder} (mode 0700)" in rights.message


def test_the_command_says_it_as_json(folder: Path) -> None:
    done = run_command("doctor", "--json", "--uds", str(folder / "none/a.sock"))
    (found,) = (each for each in json.loads(done.out) if each["check"] == "uds")
    assert found["level"] == "error"
    assert found["remedy"].startswith("make the folder")
    assert done.status == 3


def test_certificates_and_secrets(folder: Path) -> None:
    authority = Authority(folder)
    for name, life_s, level in (("day", 86_400.0, Level.OK), ("minute", 60.0, Level.WARNING)):
        pair = authority.issue(name, valid_to_s=life_s)
        pair.key.chmod(0o600)
        tls = TlsConfig(cert=str(pair.cert), key=str(pair.key))
        (found,) = check_credentials(RegistryConfig(), tls)
        assert (found.check, found.level) == ("certificate", level)
        assert str(pair.cert) in found.message
    token = folder / "token"
    token.write_text("secret")
    token.chmod(0o644)
    (found,) = check_credentials(RegistryConfig(token_file=str(token)), None)
    assert (found.check, found.level) == ("secrets", Level.WARNING)
    assert f"--registry-token-file {token} (mode 0644)" in found.message
    assert found.remedy == f"chmod 600 {token}"
