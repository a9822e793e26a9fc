"""Keys in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.security.key_files import (
    PublicKeysFile,
    SigningKeyFile,
    load_public_keys,
    load_signing_key,
    save_public_keys,
    save_signing_key,
)
from fingerpost.security.keys import PublicKeys, SigningKey
from fingerpost.security.secret_file import others_may_read

KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def test_a_private_key_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "lease.key"
    old = os.umask(0)
    try:
        save_signing_key(KEY, path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signing_key(path).kid == KEY.kid
    with pytest.raises(ConfigurationError, match="exists"):
        save_signing_key(OTHER, path)
    save_signing_key(OTHER, path, replace=True)
    assert load_signing_key(path).kid == OTHER.kid
    assert [each.name for each in tmp_path.iterdir()] == ["lease.key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_a_private_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "lease.key"
    save_signing_key(KEY, path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_signing_key(path)


@pytest.mark.parametrize(
    ("mode", "owner", "process", "others"),
    [
        (0o600, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o440, 0, 65532, False),  # a Secret in a container that is not root
        (0o640, 0, 65532, False),
        (0o444, 0, 65532, True),
        (0o460, 0, 65532, True),
        (0o440, 0, 0, True),
        (0o440, 1000, 65532, True),
    ],
)
def test_a_group_may_read_only_a_file_of_root(
    mode: int, owner: int, process: int, others: bool
) -> None:
    state = os.stat_result((0o100000 | mode, 1, 1, 1, owner, 65532, 9, 0, 0, 0))
    assert others_may_read(state, process) is others


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.key cannot be read: No such file"):
        load_signing_key(tmp_path / "none.key")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_public_keys(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 70_000)
    with pytest.raises(ConfigurationError, match="not a key file"):
        load_public_keys(tmp_path / "large")
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        save_public_keys(KEY.public, tmp_path / "none" / "keys.json")
    save_public_keys(PublicKeys(), tmp_path / "empty.json")
    with pytest.raises(ConfigurationError, match="holds no public key"):
        load_public_keys(tmp_path / "empty.json")


def test_keys_are_read_again_and_a_broken_file_keeps_the_last_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    save_public_keys(KEY.public, path)
    keys = PublicKeysFile(path)
    assert keys.current() is keys.current()
    for broken in (lambda: path.write_text("{"), path.unlink):
        caplog.clear()
        broken()
        for _ in range(3):
            assert keys.current() == KEY.public
        said = [each.getMessage() for each in caplog.records]
        assert all("stay in use" in each for each in said)
        assert len(said) <= 1  # once for all that is wrong with it until it is good again
    save_public_keys(OTHER.public, path)
    assert keys.current() == OTHER.public


def test_a_signing_key_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lease.key"
    save_signing_key(KEY, path)
    key = SigningKeyFile(path)
    assert key.current().kid == KEY.kid
    save_signing_key(OTHER, path, replace=True)
    assert key.current().kid == OTHER.kid
    path.chmod(0o644)
    path.write_bytes(KEY.encode())
    assert key.current().kid == OTHER.kid


def test_a_file_that_limits_keys_by_hand_is_not_overwritten(tmp_path):
    path = tmp_path / "keys.json"
    document = json.loads(SigningKey.generate().public.encode())
    document["keys"][0]["services"] = ["flowers"]
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="limits keys to services, which would be lost"):
        save_public_keys(SigningKey.generate().public, path)
    assert json.loads(path.read_text()) == document
